-- Fourth step: the life of a DKIM key, from its making to the end of its private half.

CREATE TABLE dkim_key_of_step_4 (
    domain       TEXT NOT NULL,
    -- A selector is used once and never again: resolvers may still hold the key that it once named.
    selector     TEXT NOT NULL,
    algorithm    TEXT NOT NULL CHECK (algorithm IN ('ed25519', 'rsa')),
    state        TEXT NOT NULL CHECK (state IN ('generated', 'published', 'active', 'retiring', 'revoked', 'destroyed')),
    made         INTEGER NOT NULL,
    -- Since when it is in this state.
    since        INTEGER NOT NULL,
    -- Whether it waits for an emergency, and not for its turn.
    standby      INTEGER NOT NULL DEFAULT 0 CHECK (standby IN (0, 1)),
    -- Since when every authoritative server has what the state publishes, and whether that is only an administrator's word.
    seen         INTEGER,
    confirmed    INTEGER NOT NULL DEFAULT 0 CHECK (confirmed IN (0, 1)),
    -- In seconds, as the servers said.
    ttl          INTEGER CHECK (ttl >= 0),
    negative_ttl INTEGER CHECK (negative_ttl >= 0),
    -- Which change of what signs it was that ended its turn, and since when no host signs with it any more.
    left_at      INTEGER,
    unused       INTEGER,
    -- When something may be due; nothing is without it.
    look_at      INTEGER,
    public       TEXT NOT NULL CHECK (public <> ''),
    key          TEXT NOT NULL CHECK (length(key) = 64 AND key NOT GLOB '*[^0-9a-f]*'),
    PRIMARY KEY (domain, selector),
    CONSTRAINT confirmed_is_seen CHECK (confirmed = 0 OR seen IS NOT NULL),
    CONSTRAINT standby_waits CHECK (standby = 0 OR state IN ('generated', 'published')),
    CONSTRAINT what_signs_is_used CHECK (state <> 'active' OR (left_at IS NULL AND unused IS NULL)),
    CONSTRAINT revoked_after_its_use CHECK (state <> 'destroyed' OR unused IS NOT NULL)
) STRICT;

INSERT INTO dkim_key_of_step_4 (domain, selector, algorithm, state, made, since, look_at, public, key)
SELECT domain, selector, algorithm, state, since, since, since, public, key FROM dkim_key;

DROP TABLE dkim_key;
ALTER TABLE dkim_key_of_step_4 RENAME TO dkim_key;

CREATE UNIQUE INDEX one_active_key ON dkim_key (domain, algorithm) WHERE state = 'active';
CREATE UNIQUE INDEX one_key_in_waiting ON dkim_key (domain, algorithm, standby) WHERE state IN ('generated', 'published');
CREATE INDEX dkim_key_by_due ON dkim_key (look_at) WHERE look_at IS NOT NULL;
CREATE INDEX dkim_key_by_age ON dkim_key (since) WHERE state = 'active';
CREATE INDEX dkim_key_in_use ON dkim_key (left_at) WHERE left_at IS NOT NULL AND unused IS NULL;

CREATE TRIGGER selector_is_never_forgotten BEFORE DELETE ON dkim_key
BEGIN
    SELECT RAISE(ABORT, 'a selector that was used stays recorded');
END;

CREATE TRIGGER dkim_key_stays_what_it_is BEFORE UPDATE ON dkim_key
WHEN OLD.domain <> NEW.domain OR OLD.selector <> NEW.selector OR OLD.algorithm <> NEW.algorithm OR OLD.public <> NEW.public
  OR OLD.key <> NEW.key OR OLD.made <> NEW.made
BEGIN
    SELECT RAISE(ABORT, 'a selector names one key for ever');
END;

CREATE TRIGGER dkim_key_never_goes_back BEFORE UPDATE ON dkim_key
WHEN instr('generated published active retiring revoked destroyed', NEW.state)
   < instr('generated published active retiring revoked destroyed', OLD.state)
BEGIN
    SELECT RAISE(ABORT, 'a DKIM key never goes back to an earlier state');
END;

CREATE TRIGGER dkim_key_begins_unused BEFORE INSERT ON dkim_key WHEN NEW.state NOT IN ('generated', 'published', 'active')
BEGIN
    SELECT RAISE(ABORT, 'a DKIM key begins its life before its end');
END;

-- Counts the changes of what signs.
CREATE TABLE dkim_change (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
    number   INTEGER NOT NULL
) STRICT;

INSERT INTO dkim_change (only_one, number) VALUES (1, 0);

-- The newest change that is known to be in force on a host.
CREATE TABLE dkim_in_force (
    host   TEXT PRIMARY KEY,
    number INTEGER NOT NULL,
    at     INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- There while out/ and postseal.lock may be older than the ledger.
CREATE TABLE stale_derived (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1)
) STRICT;
