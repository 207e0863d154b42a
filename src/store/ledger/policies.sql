-- Fifth step: where domains stand on the way to their policies, and what others report of them.

CREATE TABLE rollout (
    domain   TEXT NOT NULL,
    track    TEXT NOT NULL CHECK (track IN ('dmarc', 'mta_sts', 'spf')),
    stage    TEXT NOT NULL,
    since    INTEGER NOT NULL,
    -- Of MTA-STS: the longest that a sender may remember a policy of before, in seconds.
    max_age  INTEGER CHECK (max_age BETWEEN 0 AND 31557600),
    -- Of MTA-STS that is enforced: since when the policy also names the hosts that are to come.
    mx_since INTEGER,
    PRIMARY KEY (domain, track),
    CONSTRAINT stage_is_of_its_track CHECK (
        (track = 'dmarc' AND stage IN ('none', 'quarantine', 'reject'))
        OR (track = 'mta_sts' AND stage IN ('off', 'testing', 'enforce', 'enforce-long', 'withdrawn'))
        OR (track = 'spf' AND stage IN ('softfail', 'fail')))
) STRICT;

-- The hosts that the MX records of a domain name while its MTA-STS policy is enforced.
CREATE TABLE rollout_mx (
    domain TEXT NOT NULL,
    host   TEXT NOT NULL,
    PRIMARY KEY (domain, host)
) STRICT, WITHOUT ROWID;

-- A report is counted once, however often it is read: who sends it numbers it (RFC 9990, RFC 8460 section 4.4).
CREATE TABLE report (
    number   INTEGER PRIMARY KEY,
    kind     TEXT NOT NULL CHECK (kind IN ('dmarc', 'tls')),
    reporter TEXT NOT NULL,
    id       TEXT NOT NULL,
    domain   TEXT NOT NULL,
    begins   INTEGER NOT NULL,
    ends     INTEGER NOT NULL CHECK (ends >= begins),
    read_at  INTEGER NOT NULL,
    UNIQUE (kind, reporter, id, domain)
) STRICT;

CREATE INDEX report_by_domain ON report (kind, domain, ends);

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
