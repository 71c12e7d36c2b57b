-- Tenants that operators made while gateways ran, beside those of the
-- configuration.
CREATE TABLE tenants (
    id       TEXT   NOT NULL PRIMARY KEY,
    -- JSON.
    settings TEXT   NOT NULL,
    -- 1: its keys let nobody in.
    disabled BIGINT NOT NULL,
    -- Unix seconds.
    created  BIGINT NOT NULL,
    changed  BIGINT NOT NULL
);

-- Keys that operators made, of any tenant. The keys themselves are nowhere.
CREATE TABLE tenant_keys (
    -- SHA-256, in hexadecimal digits.
    hash     TEXT   NOT NULL PRIMARY KEY,
    tenant   TEXT   NOT NULL,
    name     TEXT   NOT NULL,
    -- `interactive` or `batch`; none for the tenant's.
    priority TEXT,
    -- Unix seconds.
    created  BIGINT NOT NULL,
    expires  BIGINT,
    -- When another took its place, in Unix milliseconds; 0: none has.
    replaced BIGINT NOT NULL,
    UNIQUE (tenant, name, replaced)
);

-- Policies of the guard that operators gave to tenants, in the place of those
-- of the configuration.
CREATE TABLE tenant_policies (
    tenant  TEXT   NOT NULL,
    -- By the name that clients write; empty for all models that have no other.
    model   TEXT   NOT NULL,
    policy  TEXT   NOT NULL,
    changed BIGINT NOT NULL,
    PRIMARY KEY (tenant, model)
);

-- When keys were last used; of the configuration's too.
CREATE TABLE key_uses (
    tenant    TEXT   NOT NULL,
    name      TEXT   NOT NULL,
    last_used BIGINT NOT NULL,
    PRIMARY KEY (tenant, name)
);
