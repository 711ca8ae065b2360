-- Forms that no single shard can answer by itself. What is refused today is marked.

SELECT count(*) FROM events;

SELECT kind, count(*) FROM events GROUP BY kind ORDER BY kind;

SELECT sum(amount), min(at), max(label) FROM events;

SELECT DISTINCT kind FROM events;

SELECT count(DISTINCT kind) FROM events;

SELECT id, row_number() OVER (ORDER BY id) FROM events ORDER BY id LIMIT 5;

SELECT id FROM events UNION SELECT event_id FROM lines;

SELECT a.id FROM events a JOIN events b ON a.kind = b.kind WHERE a.id < b.id AND a.id < 4;

SELECT id FROM events WHERE id IN (SELECT event_id FROM lines WHERE qty = 3);

SELECT id FROM events WHERE kind = (SELECT max(kind) FROM events);

WITH top AS (SELECT id FROM events ORDER BY amount LIMIT 5) SELECT count(*) FROM top;

SELECT e.id, a.note FROM events e JOIN audit a ON a.id = e.id;

-- fails: 23502
INSERT INTO events (id) VALUES (NULL);

-- fails: 23502
INSERT INTO events (kind) VALUES (1);

-- refused: key-value
INSERT INTO events (id) VALUES (1 + 6000);

INSERT INTO lines SELECT id, 77, 'copied', 1 FROM events;

SELECT id FROM events ORDER BY random() LIMIT 0;

UPDATE events SET amount = random() WHERE id = 0;

UPDATE events SET at = now() WHERE false;

SELECT id FROM events LIMIT 0;

SELECT * FROM events, lines WHERE false;

SELECT array_agg(id ORDER BY id) FROM events WHERE id = ANY ('{1,2,3,4,5,6}');
