-- Artifacts that may be in the store without a record: of a publish that has
-- begun, or of records that were deleted. Swept when that has been so for long.
CREATE TABLE unnamed_artifacts (
    tenant TEXT   NOT NULL,
    -- SHA-256 of the artifact.
    digest TEXT   NOT NULL,
    -- Unix seconds.
    since  BIGINT NOT NULL,
    PRIMARY KEY (tenant, digest)
);
