-- What keys may do, months of accounts, whom hosts refuse, and what operators did.

CREATE TABLE allowance (
    id     INTEGER PRIMARY KEY,
    limits TEXT NOT NULL -- JSON
) STRICT;

-- A key that takes another's place has its allowance too.
ALTER TABLE api_key ADD COLUMN allowance INTEGER REFERENCES allowance (id);
ALTER TABLE api_key ADD COLUMN expires INTEGER;
CREATE TEMP TABLE numbered AS SELECT hash, row_number() OVER (ORDER BY created, hash) AS id FROM api_key;
INSERT INTO allowance (id, limits) SELECT id, '{"scope":"circle"}' FROM numbered;
UPDATE api_key SET allowance = (SELECT id FROM numbered WHERE numbered.hash = api_key.hash);
DROP TABLE numbered;
CREATE TRIGGER key_has_allowance BEFORE INSERT ON api_key WHEN NEW.allowance IS NULL
BEGIN SELECT RAISE(ABORT, 'a key needs an allowance'); END;

-- Days are counted from 1970, UTC.
CREATE TABLE allowance_day (
    allowance INTEGER NOT NULL REFERENCES allowance (id),
    day       INTEGER NOT NULL,
    requests  INTEGER NOT NULL,
    tokens    INTEGER NOT NULL,
    spent     INTEGER NOT NULL,
    PRIMARY KEY (allowance, day)
) STRICT, WITHOUT ROWID;

-- Months are written 2026-11, UTC.
CREATE TABLE account_month (
    account      TEXT NOT NULL REFERENCES account (name),
    month        TEXT NOT NULL,
    requests     INTEGER NOT NULL,
    taken_in     INTEGER NOT NULL,
    taken_out    INTEGER NOT NULL,
    own_tokens   INTEGER NOT NULL,
    given_in     INTEGER NOT NULL,
    given_out    INTEGER NOT NULL,
    measured_mj  INTEGER NOT NULL,
    measured_out INTEGER NOT NULL,
    paid         INTEGER NOT NULL,
    earned       INTEGER NOT NULL,
    granted      INTEGER NOT NULL,
    PRIMARY KEY (account, month)
) STRICT, WITHOUT ROWID;

ALTER TABLE account ADD COLUMN suspended INTEGER;

CREATE TABLE refusal (
    host TEXT NOT NULL REFERENCES account (name),
    kind TEXT NOT NULL CHECK (kind IN ('account', 'group')),
    whom TEXT NOT NULL,
    PRIMARY KEY (host, kind, whom)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit (
    seq   INTEGER PRIMARY KEY,
    at    INTEGER NOT NULL,
    actor TEXT NOT NULL,
    act   TEXT NOT NULL, -- JSON
    chain BLOB NOT NULL CHECK (length(chain) = 32) -- SHA-256 over the one before and this
) STRICT;
CREATE TRIGGER audit_is_immutable BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is immutable'); END;
CREATE TRIGGER audit_stays BEFORE DELETE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is immutable'); END;
