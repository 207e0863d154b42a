-- The ledger's first schema. Times are seconds since 1970, digests and serials lower-case hexadecimal digits.
-- What must never be true is refused here, whoever asks.

CREATE TABLE account (
    address       TEXT PRIMARY KEY CHECK (address LIKE '_%@_%'),
    since         INTEGER NOT NULL,
    -- A line of the credentials table is ADDRESS:HASH, so neither colon nor white space.
    password_hash TEXT CONSTRAINT hash_fits_the_table CHECK (password_hash <> '' AND password_hash NOT GLOB '*[^!-9;-~]*'),
    removed_at    INTEGER,
    CONSTRAINT removed_account_has_no_password CHECK (removed_at IS NULL OR password_hash IS NULL)
) STRICT;

CREATE TABLE sender (
    login   TEXT NOT NULL REFERENCES account (address),
    address TEXT NOT NULL CHECK (address LIKE '_%@_%'),
    PRIMARY KEY (login, address),
    CONSTRAINT sender_is_another_address CHECK (login <> address)
) STRICT, WITHOUT ROWID;

CREATE TABLE certificate (
    serial      TEXT PRIMARY KEY CHECK (length(serial) = 32 AND serial NOT GLOB '*[^0-9a-f]*'),
    kind        TEXT NOT NULL CHECK (kind IN ('client', 'server', 'site_ca')),
    fingerprint TEXT NOT NULL UNIQUE CHECK (length(fingerprint) = 64 AND fingerprint NOT GLOB '*[^0-9a-f]*'),
    -- The certificate as PEM; a server's is followed by those it sends along.
    certificate TEXT NOT NULL,
    not_before  INTEGER NOT NULL,
    not_after   INTEGER NOT NULL,
    status      TEXT NOT NULL DEFAULT 'live' CHECK (status IN ('live', 'revoked')),
    revoked_at  INTEGER,
    reason      TEXT,
    -- The private key below state/keys; that of a client is its own.
    key         TEXT CHECK (length(key) = 64 AND key NOT GLOB '*[^0-9a-f]*'),
    host        TEXT,
    address     TEXT REFERENCES account (address),
    device      TEXT,
    issuing     TEXT,
    twin        TEXT UNIQUE,
    CONSTRAINT certificate_ends_after_it_begins CHECK (not_before < not_after),
    CONSTRAINT revoked_has_time_and_reason CHECK ((status = 'revoked') = (revoked_at IS NOT NULL)
                                              AND (status = 'revoked') = (reason IS NOT NULL)),
    CONSTRAINT authority_and_server_have_a_key CHECK ((kind <> 'client') = (key IS NOT NULL)),
    CONSTRAINT server_has_a_host CHECK ((kind = 'server') = (host IS NOT NULL)),
    CONSTRAINT client_has_an_address CHECK ((kind = 'client') = (address IS NOT NULL)),
    CONSTRAINT client_has_a_device CHECK ((kind = 'client') = (device IS NOT NULL)),
    CONSTRAINT client_has_an_issuing_ca CHECK ((kind = 'client') = (issuing IS NOT NULL)),
    CONSTRAINT client_has_a_twin CHECK ((kind = 'client') = (twin IS NOT NULL))
) STRICT;

CREATE UNIQUE INDEX one_live_site_ca ON certificate (kind) WHERE kind = 'site_ca' AND status = 'live';
CREATE UNIQUE INDEX one_live_certificate_a_host ON certificate (host) WHERE kind = 'server' AND status = 'live';
CREATE UNIQUE INDEX one_live_certificate_a_device ON certificate (address, device) WHERE kind = 'client' AND status = 'live';

CREATE TRIGGER certificate_is_never_forgotten BEFORE DELETE ON certificate
BEGIN
    SELECT RAISE(ABORT, 'a certificate that was issued stays recorded');
END;

CREATE TRIGGER certificate_is_never_admitted_again BEFORE UPDATE ON certificate WHEN OLD.status = 'revoked'
BEGIN
    SELECT RAISE(ABORT, 'a revocation is never taken back');
END;

CREATE TRIGGER removed_account_gets_no_certificate BEFORE INSERT ON certificate
WHEN NEW.kind = 'client' AND EXISTS (SELECT 1 FROM account WHERE address = NEW.address AND removed_at IS NOT NULL)
BEGIN
    SELECT RAISE(ABORT, 'a removed account gets no certificate');
END;

CREATE TRIGGER removed_account_has_no_live_certificate BEFORE UPDATE OF removed_at ON account
WHEN NEW.removed_at IS NOT NULL
 AND EXISTS (SELECT 1 FROM certificate WHERE kind = 'client' AND address = NEW.address AND status = 'live')
BEGIN
    SELECT RAISE(ABORT, 'an account with live certificates is not removed');
END;

-- Stands on the trust list while no client certificate is live: an empty list stops smtpd at its start.
CREATE TABLE placeholder (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
    twin     TEXT NOT NULL
) STRICT;

CREATE TABLE dkim_key (
    domain    TEXT NOT NULL,
    -- A selector is used once and never again: resolvers may still hold the key that it once named.
    selector  TEXT NOT NULL,
    algorithm TEXT NOT NULL CHECK (algorithm IN ('ed25519', 'rsa')),
    state     TEXT NOT NULL CHECK (state IN ('active')),
    since     INTEGER NOT NULL,
    public    TEXT NOT NULL CHECK (public <> ''),
    key       TEXT NOT NULL CHECK (length(key) = 64 AND key NOT GLOB '*[^0-9a-f]*'),
    PRIMARY KEY (domain, selector)
) STRICT;

CREATE UNIQUE INDEX one_active_key ON dkim_key (domain, algorithm) WHERE state = 'active';

CREATE TRIGGER selector_is_never_forgotten BEFORE DELETE ON dkim_key
BEGIN
    SELECT RAISE(ABORT, 'a selector that was used stays recorded');
END;

CREATE TABLE event (
    id      INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    what    TEXT NOT NULL CHECK (what <> ''),
    subject TEXT NOT NULL,
    detail  TEXT NOT NULL CHECK (json_valid(detail))
) STRICT;
