-- What nodes measured with `idlewatt bench` and published, as they signed it.

CREATE TABLE bench_report (
    seq      INTEGER PRIMARY KEY,
    id       BLOB NOT NULL UNIQUE CHECK (length(id) = 32), -- SHA-256 of signer and payload
    node     BLOB NOT NULL REFERENCES node (key),
    received INTEGER NOT NULL,
    envelope TEXT NOT NULL
) STRICT;

CREATE INDEX bench_report_of_node ON bench_report (node);
