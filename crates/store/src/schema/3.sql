-- Whose machine it is: how the GPU was given back.

-- One row a yield, rewritten while its memory is being freed.
CREATE TABLE yields (
    seen  INTEGER PRIMARY KEY,
    yield TEXT NOT NULL                    -- JSON
);

-- What the node was doing, one row a stretch. `until` is the last moment of which that is known: while the program runs, at
-- most a minute or so ago. Between rows it did not run. Where rows overlap (the clock was set back) the later one holds.
CREATE TABLE spans (
    id    INTEGER PRIMARY KEY,
    since INTEGER NOT NULL,
    until INTEGER NOT NULL,
    state TEXT NOT NULL,
    code  TEXT                             -- the reason that led, where it was paused; `asleep`: the machine slept
);
CREATE INDEX spans_by_time ON spans (until);

-- In which hours sharing was allowed, from when on.
CREATE TABLE hours (
    since      INTEGER PRIMARY KEY,
    windows    TEXT NOT NULL,              -- as settings write them
    exceptions TEXT NOT NULL
);
