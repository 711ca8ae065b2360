-- Views over sharded tables.

SELECT * FROM known WHERE id = 7;

SELECT * FROM known ORDER BY id;

SELECT k."the Title", known.label FROM known, known k WHERE known.id = k.id AND k.amount > 100 ORDER BY k."the Title", k.id LIMIT 7;

SELECT sort, count(*), sum(amount), min(label), max("the Title"), avg(amount) FROM known WHERE sort > 2 GROUP BY sort ORDER BY sort;

SELECT count(*) FROM known;

SELECT count(DISTINCT tag), max(at) FROM known x WHERE x.sort IN (1, 2) AND label LIKE 'a%';

SELECT a, d FROM known AS k (a, b, c, d) WHERE b = 3 ORDER BY a DESC LIMIT 5;

SELECT * FROM bought WHERE id = 12 ORDER BY no;

SELECT * FROM bought ORDER BY id, no LIMIT 10 OFFSET 3;

SELECT name, count(*), sum(twice) FROM bought GROUP BY name ORDER BY name NULLS FIRST;

SELECT b.what, s.n FROM bought b JOIN sparse s ON s.n = b.sort ORDER BY 1, 2, b.id, b.no;

SELECT b.id, e.kind FROM bought b JOIN events e ON e.id = b.id WHERE b.no = 1 ORDER BY 1;

SELECT id FROM events e WHERE EXISTS (SELECT FROM bought b WHERE b.id = e.id AND b.twice > 8) ORDER BY id;

SELECT id FROM events e WHERE kind NOT IN (SELECT sort FROM bought WHERE twice > 10) ORDER BY id;

SELECT what, count(*) FROM both_sides GROUP BY what ORDER BY what COLLATE "C" NULLS LAST;

SELECT * FROM both_sides WHERE id = 5 ORDER BY what;

SELECT * FROM per_event ORDER BY event_id LIMIT 9;

SELECT sum(n), max(whats) FROM per_event WHERE n > 1;

SELECT * FROM per_kind ORDER BY kind;

SELECT k.kind, k.total FROM per_kind k WHERE k.n > (SELECT avg(n) FROM per_kind) ORDER BY 1;

SELECT * FROM latest;

SELECT count(*) FROM latest l JOIN known k ON k.id = l.id;

SELECT * FROM sorted;

SELECT array_agg(id) FROM sorted WHERE id < 50;

SELECT label FROM sorted WHERE id = 20;

SELECT p.kind, q.n FROM per_kind p LEFT JOIN per_kind q ON q.kind = p.kind + 1 ORDER BY 1;

SELECT kind, (SELECT count(*) FROM events e WHERE e.kind = p.kind) = n FROM per_kind p ORDER BY 1;

WITH x AS (SELECT * FROM per_kind) SELECT a.kind, b.n FROM x a JOIN x b USING (kind) ORDER BY 1;

SELECT id FROM events WHERE id IN (SELECT id FROM latest) ORDER BY 1;

SELECT * FROM of_views ORDER BY name NULLS FIRST, n;

SELECT name, max(n) FROM of_views WHERE n > 0 GROUP BY name HAVING count(*) > 0 ORDER BY 1;

SELECT a, b FROM per_kind AS k (a, b) WHERE b > 3 ORDER BY a;

SELECT * FROM recursive_one ORDER BY 1;

SELECT * FROM compared ORDER BY id;

SELECT mood::text, n, price FROM moody ORDER BY moody.mood, price;

SELECT count(*), max(mood)::text FROM moody WHERE n > 0;

SELECT row_to_json(p) FROM per_kind p ORDER BY kind;

SELECT p::text FROM per_kind p;

SELECT count(*) FROM per_kind NATURAL JOIN of_views;

WITH known AS (SELECT 1 AS id) SELECT count(*) FROM known;

SELECT k::text FROM known k WHERE id = 7;

SELECT row_to_json(k) FROM known k ORDER BY id LIMIT 3;

SELECT count(k) FROM known k;

SELECT known.sort FROM known NATURAL JOIN sparse ORDER BY id;

SELECT sort, "the Title" FROM known ORDER BY sort, "the Title" DESC, id FETCH FIRST 4 ROWS ONLY;

-- fails: 42703
SELECT kind FROM known;

-- fails: 42804
SELECT id FROM known WHERE label;

INSERT INTO things SELECT tag, sort FROM known WHERE id = 3;

UPDATE lines SET qty = k.sort FROM known k WHERE k.id = lines.event_id AND lines.no = 1;

DELETE FROM lines USING bought b WHERE b.id = lines.event_id AND b.no = lines.no AND b.twice = 6;

-- refused: view
UPDATE known SET label = 'x' WHERE id = 7;

-- refused: view
INSERT INTO known (id, sort) VALUES (1000, 1);
