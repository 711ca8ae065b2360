-- Rows of several shards, appended or merged in order.

SELECT * FROM events;

SELECT id, label FROM events ORDER BY id;

SELECT id FROM events ORDER BY id DESC;

SELECT id, label FROM events ORDER BY label, id;

SELECT id, label FROM events ORDER BY label DESC, id DESC LIMIT 20;

SELECT id, kind FROM events ORDER BY kind NULLS FIRST, id LIMIT 10;

SELECT id, kind FROM events ORDER BY kind DESC NULLS LAST, id LIMIT 10 OFFSET 5;

SELECT id, at FROM events ORDER BY at, id;

SELECT id, day FROM events ORDER BY day DESC, id;

SELECT id, tag FROM events ORDER BY tag, id;

SELECT id, raw FROM events ORDER BY raw, id;

SELECT id, ok FROM events ORDER BY ok, id;

SELECT id, amount FROM events ORDER BY amount, id;

SELECT id, amount FROM events ORDER BY amount DESC, id;

SELECT id, ratio FROM events ORDER BY ratio, id;

SELECT id, title FROM events ORDER BY title, id;

SELECT id, title FROM events ORDER BY title COLLATE "C", id;

-- A sort key that is not among the columns.
SELECT label FROM events ORDER BY id;

SELECT id * 2 FROM events ORDER BY -id LIMIT 5;

SELECT id AS x FROM events ORDER BY x LIMIT 5;

SELECT id, label FROM events ORDER BY 2, 1 LIMIT 5;

SELECT id FROM events ORDER BY id LIMIT 0;

SELECT id FROM events ORDER BY id LIMIT 3 OFFSET 1000;

SELECT id FROM events ORDER BY id LIMIT ALL;

SELECT id FROM events ORDER BY id FETCH FIRST 3 ROWS ONLY;

SELECT id FROM events ORDER BY id OFFSET 195;

SELECT id FROM events ORDER BY id LIMIT 2 + 1;

SELECT id FROM events WHERE id IN (1, 2, 3, 4, 5, 6, 7, 8, 999);

SELECT id FROM events WHERE id = ANY ('{1,2,3}');

SELECT id FROM events WHERE id BETWEEN 5 AND 9;

SELECT id FROM events WHERE id = 1 OR id = 2;

SELECT id FROM events WHERE id = 1 OR kind = 2;

SELECT id FROM events WHERE NOT id = 1 AND kind = 3;

SELECT * FROM sparse ORDER BY id;

SELECT n FROM sparse WHERE n IS NULL;

SELECT * FROM sparse WHERE id > 100;

SELECT e.id, l.no FROM events e JOIN lines l ON l.event_id = e.id ORDER BY e.id, l.no;

SELECT e.id, l.no FROM events e LEFT JOIN lines l ON l.event_id = e.id AND l.qty > 3 ORDER BY e.id, l.no;

SELECT e.id, k.name FROM events e JOIN kinds k ON k.kind = e.kind ORDER BY e.id LIMIT 30;

SELECT event_id, count(*), sum(qty) FROM lines GROUP BY event_id ORDER BY event_id;

SELECT event_id FROM lines GROUP BY event_id HAVING count(*) > 2 ORDER BY event_id;

SELECT DISTINCT event_id FROM lines ORDER BY event_id;

SELECT DISTINCT id, kind FROM events WHERE kind = 2;

SELECT id, (SELECT name FROM kinds k WHERE k.kind = e.kind) FROM events e ORDER BY id;

SELECT id FROM events e WHERE EXISTS (SELECT FROM lines l WHERE l.event_id = e.id AND l.qty > 6) ORDER BY id;

UPDATE events SET kind = 9 WHERE kind = 2;

UPDATE events SET ok = true WHERE id IN (1, 2, 3, 4);

UPDATE events SET label = 'all';

DELETE FROM lines WHERE qty IS NULL;

DELETE FROM events WHERE id > 190 RETURNING id;

INSERT INTO lines VALUES (1, 50, 'a', 1), (2, 50, 'b', 2), (3, 50, 'c', 3), (4, 50, 'd', 4);

-- ordered
INSERT INTO lines VALUES (9, 51, 'a', 1), (1, 51, 'a', 1), (8, 51, 'x', 1), (2, 51, 'b', 2), (7, 51, 'x', 1), (3, 51, 'c', 3), (5, 51, 'x', 1), (1, 52, 'x', 1) RETURNING event_id, no;

-- ordered
INSERT INTO lines VALUES (9, 51, 'a', 7), (1, 51, 'a', 8), (8, 61, 'x', 9) ON CONFLICT (event_id, no) DO UPDATE SET qty = excluded.qty RETURNING event_id, no, qty;

INSERT INTO lines VALUES (9, 51, 'a', 7), (1, 61, 'a', 8), (8, 61, 'x', 9), (2, 61, 'x', 9) ON CONFLICT DO NOTHING RETURNING event_id, no, qty;

-- One row of the four exists already: none may stay.
-- fails: 23505
INSERT INTO lines VALUES (1, 52, 'a', 1), (2, 50, 'b', 2), (3, 52, 'c', 3), (4, 52, 'd', 4);

-- fails: 22012
UPDATE events SET amount = 1 / (id - 77) WHERE id < 100;
