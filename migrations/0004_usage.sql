-- What each generation used: one row each, written once.
CREATE TABLE usage_log (
    -- The generation's.
    id             TEXT   NOT NULL PRIMARY KEY,
    -- The run of the gateway that served it.
    gateway        TEXT   NOT NULL,
    tenant         TEXT   NOT NULL,
    key_name       TEXT   NOT NULL,
    model          TEXT   NOT NULL,
    base           TEXT   NOT NULL,
    -- Name, revision and digest; none for the base model itself.
    adapter        TEXT,
    input          BIGINT NOT NULL,
    output         BIGINT NOT NULL,
    cached         BIGINT NOT NULL,
    queue_micros   BIGINT NOT NULL,
    service_micros BIGINT NOT NULL,
    finish         TEXT   NOT NULL,
    -- Unix seconds.
    ended          BIGINT NOT NULL
);
CREATE INDEX usage_log_by_tenant ON usage_log (tenant, ended);

-- The same, summed: what budgets and bills read.
CREATE TABLE usage_by_day (
    -- Days since 1970-01-01, of UTC.
    day      BIGINT NOT NULL,
    gateway  TEXT   NOT NULL,
    tenant   TEXT   NOT NULL,
    key_name TEXT   NOT NULL,
    model    TEXT   NOT NULL,
    requests BIGINT NOT NULL,
    input    BIGINT NOT NULL,
    output   BIGINT NOT NULL,
    cached   BIGINT NOT NULL,
    PRIMARY KEY (day, tenant, key_name, model, gateway)
);
