-- Third step: certificates that end, that are replaced, that are held; an issuing CA for all; server keys in waiting; CRLs.

CREATE TABLE certificate_of_step_3 (
    serial        TEXT PRIMARY KEY CHECK (length(serial) = 32 AND serial NOT GLOB '*[^0-9a-f]*'),
    kind          TEXT NOT NULL CHECK (kind IN ('client', 'server', 'site_ca', 'issuing_ca')),
    fingerprint   TEXT NOT NULL UNIQUE CHECK (length(fingerprint) = 64 AND fingerprint NOT GLOB '*[^0-9a-f]*'),
    -- The certificate as PEM; a server's is followed by those it sends along. Of an issuing CA, the one that the site CA signed.
    certificate   TEXT NOT NULL,
    not_before    INTEGER NOT NULL,
    not_after     INTEGER NOT NULL,
    -- Daemons admit what is live. What is held waits for an administrator after a restore.
    status        TEXT NOT NULL DEFAULT 'live' CHECK (status IN ('live', 'held', 'expired', 'revoked')),
    revoked_at    INTEGER,
    reason        TEXT,
    -- The certificate that took its place, and until when both are admitted.
    superseded_by TEXT,
    retires_at    INTEGER,
    -- The private key below state/keys, or where a token keeps it; that of a client is its own.
    key           TEXT CHECK (length(key) = 64 AND key NOT GLOB '*[^0-9a-f]*'),
    token         TEXT,
    host          TEXT,
    address       TEXT REFERENCES account (address),
    device        TEXT,
    -- A client's issuing CA: of its own, with its twin, or the serial of the one for all.
    issuing       TEXT,
    twin          TEXT UNIQUE,
    issuer        TEXT,
    -- Whether the person made the key, so that it never was here.
    theirs        INTEGER NOT NULL DEFAULT 0 CHECK (theirs IN (0, 1)),
    -- When the person had the handout, so that it was removed here.
    handed_over   INTEGER,
    CONSTRAINT certificate_ends_after_it_begins CHECK (not_before < not_after),
    CONSTRAINT revoked_has_time_and_reason CHECK ((status = 'revoked') = (revoked_at IS NOT NULL)
                                              AND (status = 'revoked') = (reason IS NOT NULL)),
    CONSTRAINT superseded_has_an_end CHECK ((superseded_by IS NULL) = (retires_at IS NULL)),
    CONSTRAINT nothing_supersedes_itself CHECK (superseded_by <> serial),
    CONSTRAINT authority_and_server_have_a_key CHECK ((kind <> 'client') = (key IS NOT NULL OR token IS NOT NULL)),
    CONSTRAINT token_is_for_authorities CHECK (token IS NULL OR (key IS NULL AND kind IN ('site_ca', 'issuing_ca'))),
    CONSTRAINT server_has_a_host CHECK ((kind = 'server') = (host IS NOT NULL)),
    CONSTRAINT client_has_an_address CHECK ((kind = 'client') = (address IS NOT NULL)),
    CONSTRAINT client_has_a_device CHECK ((kind = 'client') = (device IS NOT NULL)),
    CONSTRAINT client_has_one_issuer CHECK (((issuing IS NOT NULL) + (issuer IS NOT NULL)) = (kind = 'client')),
    CONSTRAINT own_and_shared_issuers_have_a_twin CHECK ((twin IS NOT NULL) = (issuing IS NOT NULL OR kind = 'issuing_ca')),
    CONSTRAINT handed_over_is_for_clients CHECK (handed_over IS NULL OR kind = 'client')
) STRICT;

INSERT INTO certificate_of_step_3
       (serial, kind, fingerprint, certificate, not_before, not_after, status, revoked_at, reason, key, host, address, device,
        issuing, twin)
SELECT serial, kind, fingerprint, certificate, not_before, not_after, status, revoked_at, reason, key, host, address, device,
       issuing, twin
  FROM certificate;

-- Its triggers and indexes go with it.
DROP TRIGGER removed_account_has_no_live_certificate;
DROP TABLE certificate;
ALTER TABLE certificate_of_step_3 RENAME TO certificate;

CREATE UNIQUE INDEX one_live_authority ON certificate (kind)
    WHERE kind IN ('site_ca', 'issuing_ca') AND status = 'live' AND superseded_by IS NULL;
CREATE UNIQUE INDEX one_live_certificate_a_host ON certificate (host)
    WHERE kind = 'server' AND status = 'live' AND superseded_by IS NULL;
CREATE UNIQUE INDEX one_live_certificate_a_device ON certificate (address, device)
    WHERE kind = 'client' AND status IN ('live', 'held') AND superseded_by IS NULL;
CREATE INDEX certificate_by_issuer ON certificate (issuer) WHERE issuer IS NOT NULL;

CREATE TRIGGER certificate_is_never_forgotten BEFORE DELETE ON certificate
BEGIN
    SELECT RAISE(ABORT, 'a certificate that was issued stays recorded');
END;

CREATE TRIGGER certificate_is_never_admitted_again BEFORE UPDATE ON certificate
WHEN OLD.status = 'revoked' OR (OLD.status = 'expired' AND NEW.status NOT IN ('expired', 'revoked'))
BEGIN
    SELECT RAISE(ABORT, 'a certificate that was revoked or has ended is never admitted again');
END;

CREATE TRIGGER certificate_is_superseded_once BEFORE UPDATE ON certificate
WHEN OLD.superseded_by IS NOT NULL AND NEW.superseded_by IS NOT OLD.superseded_by
BEGIN
    SELECT RAISE(ABORT, 'a certificate that was replaced is never renewed again');
END;

CREATE TRIGGER removed_account_gets_no_certificate BEFORE INSERT ON certificate
WHEN NEW.kind = 'client' AND EXISTS (SELECT 1 FROM account WHERE address = NEW.address AND removed_at IS NOT NULL)
BEGIN
    SELECT RAISE(ABORT, 'a removed account gets no certificate');
END;

CREATE TRIGGER removed_account_has_no_live_certificate BEFORE UPDATE OF removed_at ON account
WHEN NEW.removed_at IS NOT NULL
 AND EXISTS (SELECT 1 FROM certificate WHERE kind = 'client' AND address = NEW.address AND status IN ('live', 'held'))
BEGIN
    SELECT RAISE(ABORT, 'an account with live certificates is not removed');
END;

-- The key that a host's next certificate will have: published (TLSA) before it is used.
CREATE TABLE next_key (
    host  TEXT PRIMARY KEY,
    key   TEXT NOT NULL CHECK (length(key) = 64 AND key NOT GLOB '*[^0-9a-f]*'),
    -- SHA-256 of the SubjectPublicKeyInfo, as TLSA 3 1 1 has it.
    spki  TEXT NOT NULL CHECK (length(spki) = 64 AND spki NOT GLOB '*[^0-9a-f]*'),
    since INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The newest CRL of each issuing CA.
CREATE TABLE crl (
    issuer      TEXT PRIMARY KEY REFERENCES certificate (serial),
    number      INTEGER NOT NULL CHECK (number > 0),
    this_update INTEGER NOT NULL,
    next_update INTEGER NOT NULL,
    pem         TEXT NOT NULL,
    CONSTRAINT crl_ends_after_it_begins CHECK (this_update < next_update)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER crl_number_only_grows BEFORE UPDATE ON crl WHEN NEW.number <= OLD.number
BEGIN
    SELECT RAISE(ABORT, 'the number of a CRL only grows');
END;

CREATE TRIGGER crl_is_never_forgotten BEFORE DELETE ON crl
BEGIN
    SELECT RAISE(ABORT, 'the number of a CRL only grows');
END;

-- What an ACME client keeps on a host, as it was seen last.
CREATE TABLE watched (
    host      TEXT NOT NULL,
    root      TEXT NOT NULL CHECK (root LIKE '/%'),
    path      TEXT NOT NULL CHECK (path LIKE '/%'),
    digest    TEXT NOT NULL CHECK (length(digest) = 64 AND digest NOT GLOB '*[^0-9a-f]*'),
    not_after INTEGER NOT NULL,
    since     INTEGER NOT NULL,
    PRIMARY KEY (host, root, path)
) STRICT, WITHOUT ROWID;

-- Whom a mail told of an expiry, and how many days before it.
CREATE TABLE notice (
    serial TEXT NOT NULL REFERENCES certificate (serial),
    days   INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    PRIMARY KEY (serial, days)
) STRICT, WITHOUT ROWID;
