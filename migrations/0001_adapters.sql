-- Adapters that were published. A row never changes but for being retired.
CREATE TABLE adapters (
    tenant   TEXT   NOT NULL,
    name     TEXT   NOT NULL,
    revision BIGINT NOT NULL,
    -- SHA-256 of the artifact.
    digest   TEXT   NOT NULL,
    base     TEXT   NOT NULL,
    rank     BIGINT NOT NULL,
    bytes    BIGINT NOT NULL,
    -- Unix seconds.
    created  BIGINT NOT NULL,
    retired  BIGINT,
    PRIMARY KEY (tenant, name, revision)
);

-- What holds of all revisions of a name.
CREATE TABLE adapter_names (
    tenant        TEXT   NOT NULL,
    name          TEXT   NOT NULL,
    -- The highest that was ever given; none is given twice.
    last_revision BIGINT NOT NULL,
    -- The revision that answers; the newest where there is none.
    pinned        BIGINT,
    PRIMARY KEY (tenant, name)
);

-- Publishes that were refused, for whoever tried to read why.
CREATE TABLE adapter_refusals (
    id      TEXT   NOT NULL PRIMARY KEY,
    tenant  TEXT   NOT NULL,
    name    TEXT   NOT NULL,
    base    TEXT   NOT NULL,
    code    TEXT   NOT NULL,
    reason  TEXT   NOT NULL,
    created BIGINT NOT NULL
);

-- One row, whose number grows with every change: what gateways poll.
CREATE TABLE catalogue_version (
    only_row BIGINT NOT NULL PRIMARY KEY CHECK (only_row = 1),
    version  BIGINT NOT NULL
);
INSERT INTO catalogue_version (only_row, version) VALUES (1, 0);
