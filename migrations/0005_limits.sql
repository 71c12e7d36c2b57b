-- Limits that operators set while gateways run, in the place of those of the
-- configuration.
CREATE TABLE tenant_limits (
    tenant  TEXT   NOT NULL,
    -- `tenant`, `key` or `model`.
    scope   TEXT   NOT NULL,
    -- Of the key or the model; empty for the tenant.
    name    TEXT   NOT NULL,
    -- JSON, by the names of the configuration.
    limits  TEXT   NOT NULL,
    -- Unix seconds.
    changed BIGINT NOT NULL,
    PRIMARY KEY (tenant, scope, name)
);
