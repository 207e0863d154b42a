-- Fifth step: where domains stand on the way to their policies, and what others report of them.

CREATE TABLE rollout (
    domain   TEXT NOT NULL,
    track    TEXT NOT NULL CHECK (track IN ('dmarc', 'mta_sts', 'spf')),
    stage    TEXT NOT NULL,
    since    INTEGER NOT NULL,
    -- Since when every authoritative server has the record of the stage.
    seen     INTEGER,
    -- When evidence for the next stage was last found to be missing.
    looked   INTEGER,
    -- Of MTA-STS: the longest max_age of an enforced policy that a sender may remember, in seconds.
    max_age  INTEGER CHECK (max_age BETWEEN 0 AND 31557600),
    -- Of a change of MX records meanwhile: its step, since when, and since when every server has what the step publishes.
    mx_step  TEXT CHECK (mx_step IN ('announced', 'moved')),
    mx_since INTEGER,
    mx_seen  INTEGER,
    PRIMARY KEY (domain, track),
    CONSTRAINT only_mta_sts_is_remembered CHECK (track = 'mta_sts' OR (max_age IS NULL AND mx_step IS NULL)),
    CONSTRAINT enforced_is_remembered CHECK (stage NOT IN ('enforce', 'enforce-long', 'withdrawn') OR max_age IS NOT NULL),
    CONSTRAINT off_is_forgotten CHECK (stage <> 'off' OR max_age IS NULL),
    CONSTRAINT change_has_begun CHECK ((mx_step IS NULL) = (mx_since IS NULL)),
    CONSTRAINT change_is_seen_in_its_step CHECK (mx_seen IS NULL OR mx_step IS NOT NULL),
    CONSTRAINT stage_is_of_its_track CHECK (
        (track = 'dmarc' AND stage IN ('none', 'quarantine', 'reject'))
        OR (track = 'mta_sts' AND stage IN ('off', 'testing', 'enforce', 'enforce-long', 'withdrawn'))
        OR (track = 'spf' AND stage IN ('softfail', 'fail')))
) STRICT;

-- A way is gone step by step; back, all of DMARC's and SPF's at once, for milder is safe.
CREATE TRIGGER rollout_skips_no_step BEFORE UPDATE OF stage ON rollout
WHEN (OLD.stage = 'none' AND NEW.stage = 'reject')
  OR (OLD.stage = 'off' AND NEW.stage NOT IN ('off', 'testing'))
  OR (OLD.stage = 'testing' AND NEW.stage = 'enforce-long')
  OR (OLD.stage IN ('enforce', 'enforce-long') AND NEW.stage = 'off')
  OR (OLD.stage = 'withdrawn' AND NEW.stage IN ('enforce', 'enforce-long'))
BEGIN
    SELECT RAISE(ABORT, 'a rollout skips no step');
END;

-- The hosts that a domain's MX records name by its MTA-STS policy, and those that the policy lists beside them.
CREATE TABLE rollout_mx (
    domain TEXT NOT NULL,
    host   TEXT NOT NULL,
    -- Whether MX records name it.
    is_mx  INTEGER NOT NULL CHECK (is_mx IN (0, 1)),
    PRIMARY KEY (domain, host)
) STRICT, WITHOUT ROWID;

-- A report is counted once, however often it is read: who sends it numbers it (RFC 9990, RFC 8460 section 4.4).
CREATE TABLE report (
    number   INTEGER PRIMARY KEY,
    kind     TEXT NOT NULL CHECK (kind IN ('dmarc', 'tls')),
    reporter TEXT NOT NULL,
    id       TEXT NOT NULL,
    -- The domain that it is about, and the site's domain that this is or lies below.
    about    TEXT NOT NULL,
    domain   TEXT NOT NULL,
    begins   INTEGER NOT NULL,
    ends     INTEGER NOT NULL CHECK (ends >= begins),
    read_at  INTEGER NOT NULL,
    -- Of what it tells: the same number for something else is no second reading.
    digest   TEXT NOT NULL,
    UNIQUE (kind, reporter, id, about)
) STRICT;

CREATE INDEX report_by_domain ON report (kind, domain, ends);
CREATE INDEX report_by_end ON report (ends);

-- What one address sent, of one DMARC report.
CREATE TABLE dmarc_source (
    report      INTEGER NOT NULL REFERENCES report (number) ON DELETE CASCADE,
    address     TEXT NOT NULL,
    header_from TEXT NOT NULL,
    messages    INTEGER NOT NULL CHECK (messages >= 0),
    dkim        INTEGER NOT NULL CHECK (dkim BETWEEN 0 AND messages),
    spf         INTEGER NOT NULL CHECK (spf BETWEEN 0 AND messages),
    passed      INTEGER NOT NULL CHECK (passed BETWEEN 0 AND messages),
    PRIMARY KEY (report, address, header_from)
) STRICT, WITHOUT ROWID;

-- The sessions of one TLS report: those that succeeded have no result.
CREATE TABLE tls_sessions (
    report   INTEGER NOT NULL REFERENCES report (number) ON DELETE CASCADE,
    result   TEXT NOT NULL,
    mx       TEXT NOT NULL,
    sessions INTEGER NOT NULL CHECK (sessions >= 0),
    PRIMARY KEY (report, result, mx)
) STRICT, WITHOUT ROWID;
