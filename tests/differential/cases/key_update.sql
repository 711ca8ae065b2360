-- Rows whose key is changed: they move to its shard, if that is another.

UPDATE odds SET id = 1001 WHERE id = 1;

UPDATE odds SET id = 1002 WHERE id = 2 RETURNING id, tags, words, price, doc, span, bits, net, wait, hour, pad, cost, "Odd ""Name", paid, place, small, mood::text, pair::text;

UPDATE odds SET id = 1003, words = words || 'more'::text, price = coalesce(price, 0) + 1, wait = NULL WHERE id = 3 RETURNING id, words, price;

SELECT id, tags, words, price, doc, span, bits, net, wait, hour, pad, cost, "Odd ""Name", paid, place, small, mood::text, pair::text FROM odds WHERE id = 1001;

SELECT id, tags, words, price, doc, span, bits, net, wait, hour, pad, cost, "Odd ""Name", paid, place, small, mood::text, pair::text FROM odds WHERE id IN (1002, 1003) ORDER BY id;

SELECT id, tags, words, price, doc, span, bits, net, wait, hour, pad, cost, "Odd ""Name", paid, place, small, mood::text, pair::text FROM odds ORDER BY id;

UPDATE odds o SET id = 1004 FROM kinds k WHERE o.id = 4 AND k.kind = 2 RETURNING o.id, k.name;

-- An assignment rounds where a comparison would not.
UPDATE odds SET id = 1005.6 WHERE id = 5;

SELECT id FROM odds WHERE id >= 1005 ORDER BY id;

UPDATE odds SET id = '1007' WHERE id = 7;

UPDATE odds SET id = 5001 WHERE id = 4999;

UPDATE odds SET id = 1008 WHERE id = 8 AND pad = 'nothing';

-- fails: 23505
UPDATE odds SET id = 21 WHERE id = 22;

-- fails: 23505
UPDATE events SET id = 100 WHERE id = 101 RETURNING *;

-- fails: 23502
-- refused: null-key
UPDATE odds SET id = NULL WHERE id = 22;

-- fails: 23514
UPDATE odds SET id = 1009, price = -1 WHERE id = 9;

-- fails: 22012
UPDATE odds SET id = 1009, price = 1 / (id - 9) WHERE id = 9;

UPDATE events SET id = 5001 WHERE id = 5;

UPDATE events SET id = 5002, at = at + interval '1 day', ratio = ratio / 3 WHERE id = 6 RETURNING *;

SELECT * FROM events WHERE id > 5000 ORDER BY id;

-- refused: key-update
UPDATE people SET name = 'someone''s \ else' WHERE name = (SELECT 'nobody');

INSERT INTO people VALUES ('first', 1), ('second', 2);

UPDATE people SET name = 'someone''s \ else', age = age + 1 WHERE name = 'first' RETURNING *;

SELECT * FROM people WHERE name = 'someone''s \ else';

UPDATE things SET id = '00000000-0000-0000-0000-000000000001' WHERE id = '00000000-0000-0000-0000-000000000002';

-- refused: key-update
UPDATE events SET id = id + 10000;

-- refused: key-update
UPDATE events SET id = id + 10000 WHERE id = 7;

-- refused: key-update
UPDATE events SET id = 9999 WHERE kind = -1;

-- refused: key-update
WITH moved AS (UPDATE events SET id = 8001 WHERE id = 8 RETURNING *) SELECT id FROM moved;

-- refused: key-update
UPDATE events SET id = 8001 WHERE id = 8 RETURNING ctid;

-- Its trigger would fire as for an INSERT.
-- refused: key-update
UPDATE lines SET event_id = 8001 WHERE event_id = 8;
