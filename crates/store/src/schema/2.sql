-- What energy cost, and what each model used. Costs are in billionths of a currency's main unit, at the price that held
-- when the energy was used; a later price changes none of them.

ALTER TABLE requests ADD COLUMN gpu TEXT;       -- the one card that it ran on, where that is known
ALTER TABLE requests ADD COLUMN cost INTEGER;
ALTER TABLE requests ADD COLUMN currency TEXT;  -- of `cost`

-- A new scope: 'model', with the key 'month<tab>card<tab>model' ('-' for no known card). Its energy is what its requests
-- took, under `answering`.
ALTER TABLE totals ADD COLUMN metered INTEGER NOT NULL DEFAULT 0; -- completion tokens of requests whose energy is known
ALTER TABLE totals ADD COLUMN error INTEGER DEFAULT 0; -- of their energy; NULL once one of them has none

-- What the energy of `totals` cost. Energy without a price is in none of these rows.
CREATE TABLE costs (
    scope    TEXT NOT NULL,
    key      TEXT NOT NULL,
    currency TEXT NOT NULL,
    energy   INTEGER NOT NULL,
    cost     INTEGER NOT NULL,
    PRIMARY KEY (scope, key, currency)
) WITHOUT ROWID;

CREATE TABLE bench (
    id     INTEGER PRIMARY KEY,
    at     INTEGER NOT NULL,
    report TEXT NOT NULL                   -- JSON
);

-- Of two labels the weaker holds for a sum; it is the first in the alphabet.
INSERT INTO totals (scope, key, requests, tokens_in, tokens_out, earned, answering, label, metered, error)
SELECT 'model', substr(day, 1, 7) || char(9) || '-' || char(9) || model,
       count(*), sum(tokens_in), sum(tokens_out), coalesce(sum(earned), 0),
       coalesce(sum(json_extract(energy, '$.total_mj')), 0),
       min(CASE WHEN json_extract(energy, '$.total_mj') IS NOT NULL THEN json_extract(energy, '$.label') END),
       sum(CASE WHEN json_extract(energy, '$.total_mj') IS NOT NULL THEN tokens_out ELSE 0 END),
       CASE WHEN count(json_extract(energy, '$.total_mj')) = count(json_extract(energy, '$.error_mj'))
            THEN coalesce(sum(json_extract(energy, '$.error_mj')), 0) END
FROM requests GROUP BY substr(day, 1, 7), model;
