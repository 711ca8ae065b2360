-- Columns that are left to the time: one for all rows of a statement.

INSERT INTO stamped (id) VALUES (1);

INSERT INTO stamped (id, note) VALUES (2, 'a'), (3, 'b'), (4, 'now()'), (5, NULL), (6, 'x'), (7, 'y') RETURNING id, at, day, hour;

INSERT INTO stamped VALUES (11, 'a'), (12, 'b'), (13, 'c'), (14, 'd'), (15, '), (DEFAULT');

INSERT INTO stamped VALUES (21, 'a', DEFAULT), (22, 'b', '2001-02-03 04:05:06+00'), (23, 'c', now()) RETURNING id, at, local;

INSERT INTO stamped AS s (at, id) VALUES (DEFAULT, 31), (now() - interval '1 hour', 32), (CURRENT_DATE, 33), (NULL, 34), (DEFAULT, 35);

-- fails: 23505
INSERT INTO stamped (id) VALUES (36), (1), (37), (38);

INSERT INTO stamped (id, note) VALUES (1, 'again'), (2, 'again'), (3, 'again'), (40, 'new') ON CONFLICT (id) DO UPDATE SET at = now(), day = DEFAULT, note = excluded.note RETURNING id, at > '2001-01-01', note;

INSERT INTO stamped (id, note) VALUES (1, 'again'), (2, 'again'), (3, 'again'), (40, 'new') ON CONFLICT (id) DO UPDATE SET at = now(), day = DEFAULT, note = excluded.note RETURNING id, at, note;

INSERT INTO stamped (id) VALUES (1), (2), (3), (41), (42) ON CONFLICT DO NOTHING RETURNING id, later;

UPDATE stamped SET at = DEFAULT, local = DEFAULT, later = now() WHERE id < 10 RETURNING id, at;

UPDATE stamped SET at = DEFAULT, note = 'default' WHERE note = 'b';

UPDATE stamped SET at = now() FROM sparse s WHERE s.id = stamped.id;

-- refused: default-differs
UPDATE stamped SET (at, note) = (DEFAULT, 'x');

-- refused: volatile-function
UPDATE stamped SET day = DEFAULT WHERE at < now() RETURNING id, at = now() - interval '0';

DELETE FROM stamped WHERE later < now() - interval '1 year';

INSERT INTO stamped (id, note) SELECT id + 1000, label::text FROM events WHERE id < 40 RETURNING id, at, day;

INSERT INTO stamped (id, note) SELECT id, 'pushed' FROM events WHERE id > 100;

INSERT INTO stamped (id, note) SELECT id + 2000, 'constant' FROM events WHERE id < 20;

INSERT INTO stamped (id, note) SELECT kind + 3000, max(label) FROM events WHERE kind IS NOT NULL GROUP BY kind;

INSERT INTO stamped (id, note) SELECT DISTINCT kind + 4000, 'distinct'::text FROM events WHERE kind IS NOT NULL ORDER BY 1;

INSERT INTO stamped (id, note) SELECT id + 5000, label FROM events WHERE id < 5 UNION ALL SELECT s.id + 6000, 'other' FROM sparse s;

INSERT INTO stamped (id, note) WITH few AS (SELECT id FROM events ORDER BY id LIMIT 5) SELECT id + 7000, 'few' FROM few;

INSERT INTO stamped (id, note, at) SELECT id + 8000, 'x', now() FROM events WHERE id < 9 RETURNING id, at;

-- Their own rows.

INSERT INTO stamped SELECT id + 9000, note, at, local, utc, day, hour, zoned, later FROM stamped WHERE id < 20;

-- Reference tables: every copy has the same.

INSERT INTO marks (code) VALUES ('a'), ('b'), ('c') RETURNING code, no, at;

INSERT INTO marks VALUES ('d', 'D'), ('e', 'E');

INSERT INTO marks (code, name, no) VALUES ('f', now()::date::text = '2001-01-01', DEFAULT);

INSERT INTO marks (code, at) VALUES ('a', '2001-01-01'), ('g', now()) ON CONFLICT (code) DO UPDATE SET at = now(), name = 'again' RETURNING *;

UPDATE marks SET at = DEFAULT WHERE code < 'c' RETURNING code, at, name;

UPDATE marks SET at = now() - interval '1 day';

INSERT INTO marks (code, no) SELECT 'k' || kind, kind FROM kinds;

INSERT INTO marks (code) SELECT 'l' || kind FROM kinds ORDER BY kind;

INSERT INTO marks (code, name) SELECT 'm' || id, label FROM events WHERE id < 30 ORDER BY id RETURNING code, no, at;

INSERT INTO marks (code, name, no) SELECT 's' || id, 'from sharded', 7 FROM sparse;

DELETE FROM marks WHERE at < now() - interval '1 hour' AND code = 'a';

-- Sequences.

INSERT INTO numbered (note) VALUES ('a'), ('b'), ('c'), ('d') RETURNING id, n, note, at;

INSERT INTO numbered (id, n, note) VALUES (DEFAULT, DEFAULT, 'e'), (DEFAULT, DEFAULT, 'f') RETURNING id, n;

INSERT INTO numbered DEFAULT VALUES RETURNING id, n, note;

-- refused: sequence-default
INSERT INTO numbered (id, note) OVERRIDING SYSTEM VALUE VALUES (1000, 'x') RETURNING n;

-- refused: sequence-default
INSERT INTO numbered (note, n) VALUES ('g', 700) RETURNING id, n;

INSERT INTO numbered (note) SELECT label FROM events WHERE id < 20 ORDER BY label, id;

INSERT INTO numbered (note) SELECT name FROM kinds ORDER BY kind LIMIT 2 RETURNING id, n, note, at;

SELECT id, n, note FROM numbered ORDER BY id;
