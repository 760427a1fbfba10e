-- API keys that nodes made for the accounts that they earn for, and which nodes may.

ALTER TABLE api_key ADD COLUMN node BLOB REFERENCES node (key); -- NULL: the operator made it
CREATE INDEX api_key_of_node ON api_key (node) WHERE node IS NOT NULL;

-- Who joined before was let in to earn, and nothing else was said.
ALTER TABLE invite ADD COLUMN spends INTEGER NOT NULL DEFAULT 0;
ALTER TABLE node ADD COLUMN spends INTEGER NOT NULL DEFAULT 0;
