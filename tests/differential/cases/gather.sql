-- What one shard answers over the rows of all.

SELECT count(*), count(kind), count(DISTINCT kind), sum(amount), avg(amount), min(label), max(title) FROM events;

SELECT round(stddev(ratio)::numeric, 9), round(regr_slope(ratio, kind)::numeric, 9), round(covar_pop(kind, id)::numeric, 9) FROM events WHERE ratio BETWEEN -5 AND 5;

SELECT sum(amount), avg(amount), variance(amount), min(at), max(day), bool_or(ok), every(ok), bit_and(kind) FROM events WHERE ratio IS DISTINCT FROM 'NaN' AND kind > 1;

SELECT count(*), sum(kind), avg(kind), min(id), max(tag::text), array_agg(id), string_agg(label, ','), bool_and(ok) FROM events WHERE kind = 12345;

SELECT kind, count(*), sum(amount), array_agg(id ORDER BY id DESC), string_agg(label, '|' ORDER BY id) FILTER (WHERE ok) FROM events GROUP BY kind ORDER BY kind NULLS FIRST;

SELECT kind % 3 AS rest, ok, count(*) FROM events GROUP BY 1, 2 HAVING count(*) > 3 ORDER BY 1, 2;

SELECT kind, ok, count(*), grouping(kind, ok) FROM events GROUP BY ROLLUP (kind, ok) ORDER BY 1, 2, 4;

SELECT kind, ok, count(*) FROM events GROUP BY GROUPING SETS ((kind), (ok), ()) ORDER BY 1, 2, 3;

SELECT DISTINCT kind, ok FROM events ORDER BY kind, ok;

SELECT DISTINCT ON (kind) kind, id, title FROM events ORDER BY kind, title, id;

SELECT id, row_number() OVER (ORDER BY amount NULLS FIRST, id), sum(kind) OVER (PARTITION BY ok ORDER BY id ROWS 3 PRECEDING) FROM events ORDER BY id;

SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY ratio), mode() WITHIN GROUP (ORDER BY kind) FROM events WHERE ratio < 10;

SELECT a.id, b.id FROM events a JOIN events b ON a.kind = b.kind AND a.id < b.id WHERE a.id < 20 ORDER BY 1, 2;

SELECT e.id, l.no, l.what FROM events e LEFT JOIN lines l ON l.qty = e.kind AND l.no = 1 WHERE e.id < 30 ORDER BY 1, l.event_id, 2;

SELECT e.id, s.n FROM sparse s RIGHT JOIN events e ON e.kind = s.n WHERE e.id BETWEEN 3 AND 40 ORDER BY 1, 2;

SELECT e.id, s.id FROM sparse s FULL JOIN events e ON e.kind = s.n ORDER BY 1, 2;

SELECT count(*) FROM events e FULL JOIN sparse s ON s.n = e.kind WHERE s.id IS NULL;

SELECT id FROM events WHERE kind NOT IN (SELECT n FROM sparse WHERE n IS NOT NULL) ORDER BY id;

SELECT id FROM events WHERE kind NOT IN (SELECT n FROM sparse) ORDER BY id;

SELECT id FROM events e WHERE NOT EXISTS (SELECT FROM lines l WHERE l.qty = e.kind) ORDER BY id;

SELECT id, (SELECT max(l.qty) FROM lines l WHERE l.no = e.kind) FROM events e ORDER BY id LIMIT 12;

SELECT e.id, x.what FROM events e, LATERAL (SELECT what FROM lines l WHERE l.qty > e.kind ORDER BY what, event_id, no LIMIT 1) x ORDER BY 1;

WITH big AS (SELECT kind, sum(amount) AS total FROM events GROUP BY kind) SELECT kind, total, (SELECT max(total) FROM big) FROM big WHERE total > (SELECT avg(total) FROM big) ORDER BY kind;

WITH a AS MATERIALIZED (SELECT id, kind FROM events WHERE id < 50) SELECT a.id, b.id FROM a JOIN a b ON b.kind = a.kind AND b.id > a.id ORDER BY 1, 2 LIMIT 20;

SELECT kind FROM events WHERE id < 9 UNION SELECT n FROM sparse ORDER BY 1 NULLS FIRST;

SELECT kind FROM events INTERSECT ALL SELECT qty FROM lines ORDER BY 1;

SELECT kind FROM events EXCEPT SELECT n FROM sparse EXCEPT ALL SELECT 3 ORDER BY 1;

SELECT e.id, k.name, a.note FROM events e JOIN kinds k ON k.kind = e.kind LEFT JOIN audit a ON a.id = e.id WHERE e.id < 25 ORDER BY e.id;

SELECT a.note, count(e.id) FROM audit a LEFT JOIN events e ON e.kind = a.id GROUP BY a.note ORDER BY 1, 2;

SELECT title, count(*) FROM events GROUP BY title ORDER BY title LIMIT 7;

SELECT max(title), min(title) FROM events;

SELECT id FROM events ORDER BY kind NULLS LAST, id DESC FETCH FIRST 5 ROWS WITH TIES;

SELECT id FROM events ORDER BY id LIMIT (SELECT 2 + 1) OFFSET 1 + 1;

SELECT count(*), min(x.n) FROM (SELECT kind AS n FROM events ORDER BY id LIMIT 10) x;

SELECT e.label, t.n FROM events e JOIN sparse t USING (id) WHERE false;

SELECT count(*) FROM events NATURAL JOIN sparse;

SELECT id FROM events JOIN sparse USING (id) ORDER BY id;

SELECT count(*) FROM events AS e (n, k) WHERE e.k = 3 AND n < 100;

SELECT count(*) FROM events WHERE label LIKE 'a%' OR label = 'it''s' OR label IS NULL;

SELECT count(*) FROM people p JOIN events e ON e.label = p.name;

SELECT p.name, count(t.id) FROM people p LEFT JOIN things t ON t.n = p.age GROUP BY p.name ORDER BY p.name COLLATE "C";

SELECT o.mood::text, o.pair::text, o.moods::text, o.tags, o.words, o.price, o.doc, o.span, o.bits, o.net, o.wait, o.hour, o.pad, o.cost, o."Odd ""Name", o.paid, o.plain, o.what, o.vector, o.place, o.code, o.small, o.title, s.* FROM odds o JOIN sparse s ON s.n = o.id % 7 ORDER BY o.id, s.id;

SELECT count(*) FROM (SELECT * FROM odds o JOIN sparse s ON s.n = o.id % 7) x;

SELECT mood::text, count(*), min(mood)::text, array_agg(tags::text ORDER BY id), array_agg(pair::text ORDER BY id) FROM odds GROUP BY mood ORDER BY odds.mood;

SELECT max(price), sum(price), max(cost), array_agg(doc ORDER BY id), array_agg(span ORDER BY id), max(pad), count(DISTINCT pad) FROM odds;

SELECT max(wait), min(hour), array_agg(moods::text ORDER BY id), array_agg(words::text ORDER BY id), max("Odd ""Name") FROM odds;

SELECT bits, count(*), max(net) FROM odds GROUP BY bits ORDER BY bits NULLS FIRST;

SELECT array_agg(plain::text ORDER BY id), array_agg(vector ORDER BY id), array_agg(place::text ORDER BY id), max(paid), sum(small), array_agg(code ORDER BY id) FROM odds;

SELECT pg_typeof(max(price))::text, pg_typeof(max(cost))::text, pg_typeof(max(pad))::text, pg_typeof(max(mood))::text FROM odds;

SELECT o.id, o.pad || '|', length(o.pad) FROM odds o JOIN odds p ON p.pad = o.pad AND p.mood > o.mood ORDER BY 1;

SELECT o.title FROM odds o JOIN odds p ON p.title > o.title AND p.mood = o.mood ORDER BY o.title, o.id, p.id;

SELECT (pair).a, count(*) FROM odds GROUP BY 1 ORDER BY 1;

SELECT tags[1], count(*) FROM odds GROUP BY 1 ORDER BY 1;

SELECT array_agg(o.* ORDER BY id)::text FROM odds o;

-- fails: 42803
SELECT kind, count(*) FROM events;

-- fails: 42703
SELECT nothing, count(*) FROM events GROUP BY 1;

-- fails: 22012
SELECT sum(1 / (id - 7)) FROM events;

SELECT e.id, e.label, count(*) FROM events e JOIN lines l ON l.qty = e.kind GROUP BY e.id ORDER BY e.id LIMIT 3;

SELECT id, title FROM events ORDER BY title, id LIMIT 9;

SELECT title FROM odds WHERE id > 7 ORDER BY title DESC NULLS LAST, id;

WITH RECURSIVE r AS (SELECT id, kind FROM events WHERE id < 5 UNION SELECT e.id, e.kind FROM events e JOIN r ON e.id = r.id * 2 + 1) SELECT id, kind FROM r ORDER BY id;

WITH RECURSIVE r (n, depth) AS (SELECT event_id, 1 FROM lines WHERE no = 0 AND event_id = 3 UNION ALL SELECT l.event_id, depth + 1 FROM lines l, r WHERE l.event_id = r.n + 1 AND l.no = 0 AND depth < 9) SELECT max(depth), count(*) FROM r, sparse;

SELECT id, title FROM events ORDER BY title DESC NULLS LAST, id LIMIT 5 OFFSET 3;

SELECT e.*, upper(label) AS big FROM events e WHERE kind > 2 AND label IS NOT NULL ORDER BY e.title, e.id DESC LIMIT 7;

SELECT title AS t FROM events WHERE id > 10 ORDER BY t, id FETCH FIRST 4 ROWS ONLY;

SELECT id FROM events WHERE ok ORDER BY title NULLS FIRST, id LIMIT 6;

SELECT id FROM events ORDER BY title, id LIMIT 0;

SELECT id, title FROM odds ORDER BY title, id OFFSET 30;

-- fails: 2201W
SELECT id FROM events ORDER BY title, id LIMIT -1;
