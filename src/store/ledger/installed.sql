-- Second step: every content that was put on a host, so that what somebody else wrote there is told apart.

CREATE TABLE installed (
    host   TEXT NOT NULL,
    -- The directory that stands for the host's own root.
    root   TEXT NOT NULL CHECK (root LIKE '/%'),
    path   TEXT NOT NULL CHECK (path LIKE '/%'),
    digest TEXT NOT NULL CHECK (length(digest) = 64 AND digest NOT GLOB '*[^0-9a-f]*'),
    since  INTEGER NOT NULL,
    PRIMARY KEY (host, root, path, digest)
) STRICT, WITHOUT ROWID;

-- What an installation that is under way will have to tell the daemons; gone when it has been said.
CREATE TABLE due (
    host    TEXT NOT NULL,
    root    TEXT NOT NULL CHECK (root LIKE '/%'),
    effect  TEXT NOT NULL CHECK (effect <> ''),
    PRIMARY KEY (host, root, effect)
) STRICT, WITHOUT ROWID;
