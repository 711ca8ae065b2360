-- All rows that matter are on one shard: anything goes.

SELECT * FROM events WHERE id = 7;

SELECT * FROM events WHERE 7 = id;

SELECT id FROM events WHERE id = '7';

SELECT id FROM events WHERE id = 7::int2;

SELECT id FROM events WHERE id = 7 AND id = 8;

SELECT count(*), sum(amount), avg(qty), max(label) FROM events JOIN lines ON event_id = id WHERE id = 7;

SELECT e.*, row_number() OVER (ORDER BY no) FROM events e JOIN lines l ON l.event_id = e.id WHERE e.id = 10;

WITH mine AS (SELECT * FROM lines WHERE event_id = 10) SELECT count(*) FROM mine;

SELECT (SELECT count(*) FROM lines l WHERE l.event_id = e.id) FROM events e WHERE e.id = 12;

SELECT * FROM people WHERE name = 'Ann';

SELECT * FROM people WHERE name = '';

SELECT * FROM people WHERE name = 'ä';

SELECT * FROM people WHERE name = E'a\'b';

SELECT * FROM things WHERE id = 'ffffffff-0000-4000-8000-00000000000b';

SELECT * FROM things WHERE id = '{FFFFFFFF00004000800000000000000B}';

SELECT * FROM events WHERE id = NULL;

SELECT * FROM events WHERE (id, kind) = (5, 1);

SELECT id FROM events WHERE id = 3 UNION SELECT event_id FROM lines WHERE event_id = 3;

INSERT INTO events (id, kind, label) VALUES (1001, 1, 'x') RETURNING id, kind, label, amount;

INSERT INTO events (kind, id) VALUES (1, 1002);

-- fails: 23505
INSERT INTO events (id) VALUES (7);

-- fails: 22P02
INSERT INTO events (id) VALUES ('7x');

UPDATE events SET amount = 5 WHERE id = 1001 RETURNING amount;

UPDATE events SET amount = l.qty FROM lines l WHERE l.event_id = events.id AND events.id = 10;

DELETE FROM events WHERE id = 1002;

DELETE FROM lines USING events WHERE event_id = id AND id = 11;

SELECT id FROM events WHERE id = 9223372036854775807;

SELECT id FROM events WHERE id = 9223372036854775808;

SELECT id FROM events WHERE id = 7.0;

SELECT id FROM events WHERE id = -7;

SELECT * FROM events WHERE id = 5 FOR UPDATE;
