-- UPDATE of all rows by another table's of the same key.

UPDATE sparse SET n = e.kind FROM events e WHERE e.id = sparse.id RETURNING sparse.id, sparse.n, e.label;

UPDATE lines l SET qty = l.qty + e.kind, what = e.label || k.name FROM events e JOIN kinds k ON k.kind = e.kind WHERE e.id = l.event_id AND e.id < 100;

UPDATE lines SET qty = k.kind FROM kinds k WHERE k.kind = lines.qty RETURNING event_id, no, k.name;

UPDATE events e SET label = 'l' FROM lines l, sparse s WHERE l.event_id = e.id AND s.id = e.id RETURNING e.id;

UPDATE lines SET (qty, what) = (SELECT kind, label FROM events e WHERE e.id = lines.event_id) WHERE no = 1;

UPDATE sparse SET n = (SELECT count(*) FROM lines l WHERE l.event_id = sparse.id);

UPDATE sparse SET n = 1 WHERE EXISTS (SELECT FROM lines l WHERE l.event_id = sparse.id) RETURNING *;

-- By another key.

-- refused: join
UPDATE sparse SET n = 2 FROM events e WHERE e.kind = sparse.id;

-- refused: local-with-sharded
UPDATE sparse SET n = 3 FROM audit a WHERE a.id = sparse.id;

-- refused: aggregate
UPDATE sparse SET n = (SELECT max(id) FROM events);

-- A reference table by itself, and by another.

UPDATE kinds SET name = upper(name);

-- refused: reference-write-reads
UPDATE kinds SET name = 'x' FROM sparse s WHERE s.id = kinds.kind;

-- refused: reference-write-differs
UPDATE kinds a SET name = a.name || b.name FROM kinds b WHERE b.kind = a.kind + 1;

UPDATE audit SET note = k.name FROM kinds k WHERE k.kind = audit.id;

-- refused: local-with-sharded
UPDATE audit SET note = e.label FROM events e WHERE e.id = audit.id;

DELETE FROM lines USING events e WHERE e.id = lines.event_id AND e.kind = 2 RETURNING lines.event_id, lines.no;

DELETE FROM lines USING kinds k WHERE k.kind = lines.qty AND k.name < 'B';

DELETE FROM lines WHERE event_id IN (SELECT id FROM events WHERE kind = 1);

-- refused: join
DELETE FROM sparse USING events e WHERE e.kind = sparse.id;

DELETE FROM audit USING kinds k WHERE k.kind = audit.id;

-- refused: reference-write-reads
DELETE FROM kinds USING events e WHERE e.kind = kinds.kind;

DELETE FROM lines USING lines other WHERE other.event_id = lines.event_id AND other.no < lines.no;

MERGE INTO sparse s USING events e ON e.id = s.id WHEN MATCHED AND e.kind > 2 THEN DELETE WHEN MATCHED THEN UPDATE SET n = e.kind;

MERGE INTO sparse s USING events e ON e.id = s.id WHEN NOT MATCHED AND e.id < 30 THEN INSERT VALUES (e.id, e.kind) WHEN MATCHED THEN DO NOTHING;

MERGE INTO sparse s USING (SELECT id, count(*) AS c FROM events e JOIN lines l ON l.event_id = e.id GROUP BY id) x ON x.id = s.id WHEN MATCHED THEN UPDATE SET n = x.c WHEN NOT MATCHED THEN INSERT (id, n) VALUES (x.id, x.c);

MERGE INTO lines l USING kinds k ON k.kind = l.qty WHEN MATCHED THEN UPDATE SET what = k.name;

MERGE INTO sparse s USING kinds k ON k.kind = s.n WHEN MATCHED THEN UPDATE SET n = s.n + 1;

-- refused: merge
MERGE INTO sparse s USING kinds k ON k.kind = s.id WHEN NOT MATCHED THEN INSERT VALUES (k.kind, 0);

-- refused: distinct
MERGE INTO sparse s USING (SELECT DISTINCT kind FROM events WHERE kind IS NOT NULL) e ON e.kind = s.id WHEN MATCHED THEN UPDATE SET n = 1;

-- refused: merge
MERGE INTO sparse s USING (VALUES (7, 70)) v (id, n) ON v.id = s.id WHEN MATCHED THEN UPDATE SET n = v.n WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.n);

-- refused: merge
MERGE INTO sparse s USING (VALUES (7, 71)) v (id, n) ON s.id = 7 AND v.id = s.id WHEN MATCHED THEN UPDATE SET n = v.n WHEN NOT MATCHED THEN INSERT VALUES (v.id, v.n);

-- refused: reference-write-differs
MERGE INTO kinds k USING (VALUES (1, 'one'), (99, 'more')) v (kind, name) ON v.kind = k.kind WHEN MATCHED THEN UPDATE SET name = v.name WHEN NOT MATCHED THEN INSERT VALUES (v.kind, v.name);

MERGE INTO audit a USING kinds k ON k.kind = a.id WHEN MATCHED THEN UPDATE SET note = k.name WHEN NOT MATCHED THEN INSERT VALUES (k.kind, k.name);

-- WITH that writes: on one shard, on all, into two tables.

WITH gone AS (DELETE FROM lines WHERE event_id = 5 RETURNING no, qty) SELECT count(*), sum(qty) FROM gone;

WITH gone AS (DELETE FROM lines WHERE event_id = 6 RETURNING event_id, qty) UPDATE events SET kind = 9 FROM gone WHERE gone.event_id = events.id AND events.id = 6 RETURNING events.id;

WITH new AS (INSERT INTO sparse VALUES (3001, 1) RETURNING id) SELECT id FROM new;

-- refused: data-modifying-cte
WITH new AS (INSERT INTO sparse VALUES (3002, 1), (3003, 1), (3004, 2) RETURNING id) SELECT id FROM new ORDER BY id;

WITH gone AS (DELETE FROM lines WHERE qty = 3 RETURNING event_id) SELECT event_id FROM gone;

WITH gone AS (DELETE FROM lines WHERE qty = 4 RETURNING event_id) UPDATE events e SET kind = 8 FROM gone g WHERE g.event_id = e.id;

-- refused: aggregate
WITH gone AS (DELETE FROM lines WHERE qty = 5 RETURNING event_id, qty) SELECT count(*), sum(qty) FROM gone;

-- Rows that one write gives back to another, and to queries, where each shard has what it needs.

WITH gone AS (DELETE FROM lines WHERE qty = 2 RETURNING event_id, no, what, qty) INSERT INTO lines SELECT event_id, no + 100, what, 1 FROM gone;

WITH gone AS (DELETE FROM lines WHERE no > 100 RETURNING *) INSERT INTO lines SELECT * FROM gone RETURNING event_id, no;

-- refused: insert-select
WITH gone AS (DELETE FROM events e WHERE id > 180 RETURNING e.*) INSERT INTO stamped (id, note, at) SELECT id + 0, label, at FROM gone;

WITH gone AS (DELETE FROM events e WHERE id BETWEEN 160 AND 180 RETURNING e.*) INSERT INTO stamped (id, note, at) SELECT id, label, '2001-01-01' FROM gone ON CONFLICT (id) DO UPDATE SET note = 'there';

WITH gone AS (DELETE FROM lines WHERE event_id > 150 RETURNING event_id), also AS (UPDATE sparse SET n = 7 RETURNING id) SELECT event_id FROM gone ORDER BY event_id;

WITH changed AS (UPDATE events SET kind = 5 WHERE kind = 4 RETURNING id, label) SELECT c.id, c.label, l.no FROM changed c LEFT JOIN lines l ON l.event_id = c.id;

WITH changed AS (UPDATE events SET kind = 4 WHERE kind = 5 RETURNING id) SELECT event_id, no FROM lines WHERE event_id IN (SELECT id FROM changed) ORDER BY event_id, no;

WITH changed AS (UPDATE events SET kind = 4 WHERE kind = 4 RETURNING id) SELECT id, count(*) FROM changed GROUP BY id;

WITH changed AS (UPDATE events SET ok = NOT ok WHERE id < 20 RETURNING id, ok) DELETE FROM lines USING changed c WHERE c.id = lines.event_id AND c.ok;

-- All rows are written, however many are wanted.
WITH changed AS (UPDATE events SET label = 'limited' WHERE kind = 4 RETURNING id, kind) SELECT id FROM changed ORDER BY kind, id LIMIT 2;

WITH changed AS (UPDATE events SET label = label || '!' WHERE kind = 4 RETURNING id, label) SELECT label FROM changed LIMIT 1 OFFSET 1;

SELECT id, label FROM events WHERE kind = 4 ORDER BY id;

-- What is asked of the rows that are given back says nothing of those that are written.
WITH changed AS (UPDATE sparse SET n = 77 RETURNING id) SELECT * FROM changed WHERE id = 1;

SELECT * FROM sparse ORDER BY id;

WITH gone AS (DELETE FROM lines WHERE event_id IN (21, 22, 23, 24, 25)) UPDATE events SET kind = 6 WHERE id = 31;

SELECT count(*) FROM lines WHERE event_id BETWEEN 20 AND 26;

-- Not so.

-- refused: join
WITH changed AS (UPDATE events SET kind = 4 WHERE kind = 4 RETURNING id, kind) SELECT s.id FROM changed c JOIN sparse s ON s.n = c.kind;

-- refused: subquery
WITH changed AS (UPDATE events SET kind = 4 WHERE kind = 4 RETURNING kind) SELECT id FROM sparse WHERE n IN (SELECT kind FROM changed);

-- refused: subquery
WITH changed AS (UPDATE events SET kind = 4 WHERE kind = 4) SELECT 1;

-- refused: insert-select
WITH gone AS (DELETE FROM lines WHERE no = 3 RETURNING event_id) INSERT INTO sparse SELECT event_id + 1, 0 FROM gone;

WITH chosen AS (SELECT id FROM events WHERE kind = 3) UPDATE sparse SET n = 33 FROM chosen c WHERE c.id = sparse.id;

WITH chosen AS (SELECT id FROM events WHERE kind = 3) DELETE FROM lines USING chosen c WHERE c.id = lines.event_id;

WITH a AS (UPDATE kinds SET name = 'a' WHERE kind = 1 RETURNING kind) SELECT * FROM a;

-- The clock is the same on all shards.

UPDATE events SET at = now();

SELECT count(DISTINCT at), max(at) <= clock_timestamp() FROM events;

INSERT INTO events (id, at, day) SELECT id + 5000, CURRENT_TIMESTAMP, CURRENT_DATE FROM events WHERE id < 20;

INSERT INTO events (id, at) VALUES (6001, now()), (6002, now()), (6003, CURRENT_TIMESTAMP), (6004, transaction_timestamp()), (6005, localtimestamp);

SELECT count(DISTINCT at) FROM events WHERE id > 6000;

UPDATE events SET at = CASE WHEN id % 2 = 0 THEN now() ELSE now() - interval '1 hour' END, day = CURRENT_DATE WHERE id < 50 RETURNING id;

SELECT count(DISTINCT at), min(day) = max(day) FROM events WHERE id < 50;

-- refused: volatile-function
UPDATE events SET at = clock_timestamp();

-- refused: volatile-function
UPDATE events SET at = statement_timestamp();

-- refused: volatile-function
UPDATE events SET at = now() RETURNING id, now();

-- refused: volatile-function
UPDATE events SET at = 'now';

-- refused: reference-write-differs
UPDATE kinds SET name = clock_timestamp()::text WHERE kind = 1;

DELETE FROM events WHERE at < now() - interval '1 day';

-- Their clocks are not the same.

UPDATE events SET at = NULL, day = NULL;

TRUNCATE lines;

TRUNCATE sparse, people RESTART IDENTITY;

TRUNCATE TABLE ONLY things CASCADE;

TRUNCATE kinds, audit;
