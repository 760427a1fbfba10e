-- Times are milliseconds since 1970, amounts micro-credits, keys and ids raw bytes.

CREATE TABLE setting (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE circle (
    name      TEXT PRIMARY KEY,
    overdraft INTEGER NOT NULL CHECK (overdraft >= 0),
    created   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE account (
    name      TEXT PRIMARY KEY,
    circle    TEXT REFERENCES circle (name),
    overdraft INTEGER CHECK (overdraft >= 0), -- NULL: no limit, issuance only
    balance   INTEGER NOT NULL DEFAULT 0,
    created   INTEGER NOT NULL,
    CHECK (overdraft IS NOT NULL OR name = 'issuance')
) STRICT, WITHOUT ROWID;

CREATE TABLE api_key (
    hash    BLOB PRIMARY KEY CHECK (length(hash) = 32), -- SHA-256 of the key
    account TEXT NOT NULL REFERENCES account (name),
    display TEXT NOT NULL, -- its first characters
    created INTEGER NOT NULL,
    revoked INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE invite (
    id         TEXT PRIMARY KEY,
    token_hash BLOB NOT NULL CHECK (length(token_hash) = 32),
    account    TEXT NOT NULL REFERENCES account (name),
    created    INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    used_by    BLOB, -- the node's key
    used       INTEGER
) STRICT, WITHOUT ROWID;

CREATE TABLE node (
    key        BLOB PRIMARY KEY CHECK (length(key) = 32),
    account    TEXT NOT NULL REFERENCES account (name),
    name       TEXT,
    agent      TEXT NOT NULL,
    first_seen INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL,
    epoch      INTEGER NOT NULL,
    posted_seq INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE posting (
    seq      INTEGER PRIMARY KEY,
    id       BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    at       INTEGER NOT NULL,
    purpose  TEXT NOT NULL CHECK (purpose IN ('request', 'grant')),
    debit    TEXT NOT NULL REFERENCES account (name),
    reserved INTEGER NOT NULL CHECK (reserved >= 0)
) STRICT;

CREATE TABLE transfer (
    posting INTEGER NOT NULL REFERENCES posting (seq),
    line    INTEGER NOT NULL,
    credit  TEXT NOT NULL REFERENCES account (name),
    amount  INTEGER NOT NULL CHECK (amount > 0),
    PRIMARY KEY (posting, line)
) STRICT, WITHOUT ROWID;

CREATE TABLE receipt (
    seq      INTEGER PRIMARY KEY,
    id       BLOB NOT NULL UNIQUE CHECK (length(id) = 16),
    account  TEXT NOT NULL REFERENCES account (name),
    envelope TEXT NOT NULL,
    salt     BLOB NOT NULL CHECK (length(salt) = 32)
) STRICT;

CREATE TABLE node_posting (
    node    BLOB NOT NULL REFERENCES node (key),
    seq     INTEGER NOT NULL,
    receipt INTEGER NOT NULL REFERENCES receipt (seq),
    PRIMARY KEY (node, seq)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER posting_is_immutable BEFORE UPDATE ON posting
BEGIN SELECT RAISE(ABORT, 'postings are immutable'); END;
CREATE TRIGGER posting_stays BEFORE DELETE ON posting
BEGIN SELECT RAISE(ABORT, 'postings are immutable'); END;
CREATE TRIGGER transfer_is_immutable BEFORE UPDATE ON transfer
BEGIN SELECT RAISE(ABORT, 'transfers are immutable'); END;
CREATE TRIGGER transfer_stays BEFORE DELETE ON transfer
BEGIN SELECT RAISE(ABORT, 'transfers are immutable'); END;
CREATE TRIGGER receipt_is_immutable BEFORE UPDATE ON receipt
BEGIN SELECT RAISE(ABORT, 'receipts are immutable'); END;
CREATE TRIGGER receipt_stays BEFORE DELETE ON receipt
BEGIN SELECT RAISE(ABORT, 'receipts are immutable'); END;

INSERT INTO account (name, overdraft, created) VALUES ('issuance', NULL, 0), ('fees', 0, 0);
