-- What an artifact answers to a prompt of its own. The first that is written
-- down stays, so every gateway compares with the same.
CREATE TABLE adapter_probes (
    base    TEXT   NOT NULL,
    -- SHA-256 of the artifact.
    digest  TEXT   NOT NULL,
    -- JSON; none where no prompt was found that it answers unlike its base.
    probe   TEXT,
    -- Unix seconds.
    created BIGINT NOT NULL,
    PRIMARY KEY (base, digest)
);
