-- What applications ask every day, of several shards.

-- An enum's order is PostgreSQL's alone.
SELECT id, mood::text FROM odds ORDER BY mood, id;

SELECT id FROM odds ORDER BY mood DESC NULLS LAST, id LIMIT 7 OFFSET 2;

SELECT id, mood::text FROM odds WHERE mood > 'sad' ORDER BY 2, id;

SELECT mood::text AS m, id FROM odds ORDER BY odds.mood, id DESC;

SELECT id FROM odds ORDER BY moods, tags, words, id;

SELECT id FROM odds ORDER BY pair, price, id;

SELECT id FROM odds ORDER BY doc, span, net, id;

SELECT id FROM odds ORDER BY wait, hour, paid, bits, id;

SELECT mood::text FROM (SELECT mood, id FROM odds) o ORDER BY mood, id;

SELECT id, kind FROM (SELECT DISTINCT kind, ok, max(id) OVER () AS id FROM events) e ORDER BY kind, ok;

SELECT id FROM odds ORDER BY coalesce(mood, 'glad'), id;

SELECT mood::text, count(*) FROM odds GROUP BY mood ORDER BY odds.mood;

SELECT id, max(mood) OVER (PARTITION BY id)::text FROM odds ORDER BY max(mood) OVER (PARTITION BY id), id;

SELECT id FROM odds WHERE id < 9 UNION ALL SELECT id FROM odds WHERE mood = 'glad' ORDER BY id;

SELECT u.mood::text FROM (SELECT mood FROM odds WHERE id < 9 UNION ALL SELECT mood FROM odds WHERE mood = 'glad') u ORDER BY u.mood;

SELECT id FROM odds ORDER BY CASE WHEN id < 20 THEN mood END, id;

-- Texts whose collation only PostgreSQL knows.
SELECT id FROM events ORDER BY upper(title), id;

SELECT id, lower(label) FROM events ORDER BY lower(label), id;

SELECT id, lower(label) AS low FROM events ORDER BY low DESC, id LIMIT 9;

SELECT id FROM events ORDER BY title || kind, id LIMIT 20;

SELECT id, label || '!' FROM events ORDER BY 2, 1;

SELECT id, CASE WHEN ok THEN title ELSE 'none' END FROM events ORDER BY 2, 1;

SELECT id FROM events ORDER BY label COLLATE "und-x-icu", id;

SELECT id FROM events ORDER BY title COLLATE "C", id;

SELECT id, kind::text FROM events ORDER BY 2, 1;

SELECT e.id, k.name FROM events e JOIN kinds k USING (kind) ORDER BY k.name, e.id;

SELECT e.id, upper(k.name) FROM events e JOIN kinds k USING (kind) ORDER BY 2 DESC, 1;

SELECT id, to_char(day, 'YYYY-MM') AS month FROM events ORDER BY month, id;

SELECT id FROM events ORDER BY length(title), id;

SELECT name FROM people ORDER BY name;

SELECT name FROM people ORDER BY lower(name), age;

SELECT upper(label) FROM events WHERE id < 30 UNION ALL SELECT upper(what) FROM lines WHERE event_id < 9 ORDER BY 1;

SELECT doc->>'a' AS a, id FROM odds ORDER BY a, id;

SELECT id FROM odds ORDER BY doc->>'a', id;

SELECT DISTINCT lower(title) FROM events ORDER BY lower(title);

SELECT id, title FROM events ORDER BY lower(title) DESC NULLS LAST, id LIMIT 5 OFFSET 2;

SELECT id FROM events WHERE kind > 2 ORDER BY upper(events.title), id FETCH FIRST 3 ROWS ONLY;

SELECT id FROM public.events ORDER BY upper(public.events.title), public.events.id LIMIT 4;

SELECT upper(label) AS title, id FROM events ORDER BY lower(title), id LIMIT 4;

-- BETWEEN SYMMETRIC and sets of values.
SELECT id FROM events WHERE id BETWEEN SYMMETRIC 9 AND 5 ORDER BY id;

SELECT kind NOT BETWEEN 2 AND 4, id FROM events WHERE kind BETWEEN SYMMETRIC 4 AND 2 ORDER BY title, id;

SELECT id FROM events WHERE id BETWEEN SYMMETRIC 9 AND 7 + 2 OR id BETWEEN ASYMMETRIC 7 AND 3 ORDER BY id;

SELECT count(*) FROM events WHERE kind NOT BETWEEN SYMMETRIC 4 AND 2;

SELECT id FROM events WHERE id = ANY (VALUES (3), (5), (7)) ORDER BY id;

SELECT id FROM events WHERE id IN (VALUES (3), (5), (7)) ORDER BY id;

SELECT id FROM events WHERE (id, kind) IN (VALUES (3, 1), (5, 2)) ORDER BY id;

SELECT id FROM events WHERE kind = ANY (VALUES (1), (2)) ORDER BY id;

SELECT id FROM events WHERE kind <> ALL (VALUES (1), (2)) ORDER BY id;

SELECT e.id, v.b FROM events e JOIN (VALUES (1, 'x'), (2, 'y')) v (a, b) ON v.a = e.id ORDER BY 1;

SELECT id FROM events WHERE id BETWEEN SYMMETRIC 30 AND 4 AND id BETWEEN ASYMMETRIC 9 AND 31 AND NOT id NOT BETWEEN SYMMETRIC 8 AND 28 ORDER BY id;

-- All of a table.
TABLE sparse;

TABLE events ORDER BY id LIMIT 3;

TABLE sparse UNION ALL TABLE sparse;

SELECT * FROM (TABLE sparse) s ORDER BY id;

WITH s AS (TABLE sparse) SELECT count(*) FROM s;

SELECT id FROM events WHERE id IN (SELECT id FROM (TABLE sparse) s) ORDER BY id;

INSERT INTO things TABLE things LIMIT 0;

-- Times without a zone as keys.
INSERT INTO moments VALUES ('2024-01-01 00:00', 1), ('2024-01-01 00:00:00.5', 2), (timestamp '2024-02-29 12:00', 3), ('infinity', 4), ('2024-03-01'::timestamp, 5);

SELECT n FROM moments WHERE at = '2024-01-01';

SELECT n FROM moments WHERE at = timestamp '2024-02-29 12:00:00';

SELECT n FROM moments WHERE at IN ('2024-01-01T00:00:00.500', 'infinity') ORDER BY n;

SELECT n FROM moments WHERE at = date '2024-03-01';

SELECT n FROM moments WHERE at > '2024-01-15' ORDER BY at;

UPDATE moments SET n = 10 WHERE at = '2024-01-01 00:00:00.50';

DELETE FROM moments WHERE at = '2024-02-29 12:00';

SELECT at, n FROM moments ORDER BY at;

-- Whole rows.
SELECT s::text FROM sparse s ORDER BY id;

SELECT row_to_json(s) FROM sparse s ORDER BY id;

SELECT to_jsonb(s.*) FROM sparse s ORDER BY s.id;

SELECT to_jsonb(e) - 'at' FROM events e WHERE id < 9 ORDER BY id;

SELECT row_to_json(e) FROM events e WHERE id < 9 ORDER BY id;

SELECT count(s) FROM sparse s;

SELECT count(s.*), count(DISTINCT s) FROM sparse s;

SELECT json_agg(s ORDER BY s.id) FROM sparse s;

SELECT coalesce(json_agg(row_to_json(e) ORDER BY id), '[]') FROM (SELECT id, kind, label FROM events WHERE id < 12) e;

SELECT coalesce(json_agg(_postgrest_t ORDER BY id), '[]')::character varying AS body FROM (SELECT public.sparse.* FROM public.sparse) _postgrest_t;

SELECT e.id, (SELECT json_agg(l ORDER BY no) FROM lines l WHERE l.event_id = e.id) FROM events e WHERE e.id < 12 ORDER BY e.id;

SELECT e.id, (SELECT json_agg(l ORDER BY event_id, no) FROM lines l WHERE l.qty = e.kind) FROM events e WHERE e.id < 12 ORDER BY e.id;

SELECT to_jsonb(e)->'kind', count(*) FROM (SELECT kind, id FROM events) e GROUP BY 1 ORDER BY 2, 1::text;

WITH pgrst_source AS (SELECT "public"."sparse".* FROM "public"."sparse" WHERE "public"."sparse"."id" > 0 ORDER BY "public"."sparse"."id" DESC LIMIT 3 OFFSET 0) SELECT null::bigint AS total_result_set, pg_catalog.count(_postgrest_t) AS page_total, coalesce(json_agg(_postgrest_t), '[]') AS body FROM (SELECT * FROM pgrst_source) _postgrest_t;

SELECT public.events.id, public.events.label FROM public.events JOIN public.lines ON public.lines.qty = public.events.kind WHERE public.events.id < 9 GROUP BY public.events.id ORDER BY public.events.id;

SELECT o::text, o.id FROM odds o JOIN sparse s ON s.n = (o).tags[1] ORDER BY o.id;

SELECT row_to_json(k), row_to_json(b) FROM bought b JOIN known k ON k.sort = b.sort WHERE b.id < 7 AND k.id < 7 ORDER BY k.id, b.id, b.no;

SELECT row_to_json(p), pg_typeof(p)::text FROM per_kind p ORDER BY kind;

SELECT to_json(l) FROM latest l;

-- refused: join
SELECT e::text, max(l.no) FROM events e JOIN lines l ON l.qty = e.kind WHERE e.id < 6 GROUP BY e.id ORDER BY e.id;

SELECT (s).n FROM sparse s ORDER BY (s).id;

-- refused: unparsed
SELECT (e).* FROM events e WHERE id < 4 ORDER BY id;

SELECT id FROM sparse s ORDER BY s;

SELECT e.id, s IS NULL, row_to_json(s), s::text FROM events e LEFT JOIN shapes s ON s.b = 'x' AND s.a = e.kind WHERE e.id < 12 ORDER BY e.id;

SELECT s::text, (s).cost, (s::shapes).pad || '|' FROM shapes s FULL JOIN sparse p ON p.n = s.a + 1 ORDER BY s.id, p.id;

SELECT e.id, (x.l).what, x::text FROM events e, LATERAL (SELECT l FROM lines l WHERE l.qty = e.kind ORDER BY l DESC LIMIT 1) x WHERE e.id < 12 ORDER BY e.id;

SELECT (SELECT count(coalesce(l.what, s::text)) FROM lines l WHERE l.qty = s.id), to_json(s) FROM shapes s ORDER BY s.id;

SELECT row_to_json(s) FROM shapes s (one, two) ORDER BY one;

SELECT s.one, count(s) OVER (ORDER BY s.one), s::text FROM shapes s (one, two) ORDER BY s.one;

WITH RECURSIVE r AS (SELECT s AS row, 1 AS depth FROM shapes s WHERE s.id = 1 UNION ALL SELECT s, depth + 1 FROM shapes s, r WHERE s.id = (r.row).id + 1) SELECT row::text, depth FROM r ORDER BY depth;

SELECT to_json(x), to_json(y) FROM (shapes x JOIN shapes y ON y.a = x.a + 1) ORDER BY x.id;

SELECT to_json(j) FROM (shapes a JOIN sparse b USING (id)) AS j ORDER BY id;

SELECT s IS NULL, s IS NOT NULL FROM sparse s ORDER BY id;

SELECT e.id, s IS NULL FROM events e LEFT JOIN sparse s ON s.n = e.kind WHERE e.id < 9 ORDER BY e.id, s.id;

SELECT e.id, row_to_json(s) FROM events e LEFT JOIN sparse s ON s.n = e.kind WHERE e.id < 9 ORDER BY e.id, s.id;

SELECT array_agg(s ORDER BY id)::text FROM sparse s;

SELECT e.id, to_json(k) FROM events e JOIN kinds k USING (kind) WHERE e.id < 9 ORDER BY e.id;

-- refused: unparsed
SELECT json_build_object('id', e.id, 'kind', row_to_json(k), 'n', count(l)) FROM events e LEFT JOIN kinds k USING (kind) LEFT JOIN lines l ON l.event_id = e.id WHERE e.id < 6 GROUP BY e.id, k.* ORDER BY e.id;

SELECT row_to_json(row(id, kind)) FROM events WHERE id < 5 ORDER BY id;

SELECT row(id, kind) FROM events WHERE id < 5 ORDER BY row(kind, id);

SELECT row_to_json(o) FROM (SELECT id, mood, tags, pair, doc, cost FROM odds) o ORDER BY id;

SELECT to_jsonb(o) - 'small' FROM odds o ORDER BY id;

-- refused: unparsed
SELECT count(o) FROM odds o WHERE o.* IS DISTINCT FROM NULL;

SELECT max(row_to_json(s)::text) FROM sparse s;

SELECT public.sparse.id FROM public.sparse ORDER BY 1;

SELECT public.sparse.id, count(*) FROM public.sparse JOIN events ON events.kind = public.sparse.n GROUP BY 1 ORDER BY 1;

SELECT jsonb_agg(x) FROM (SELECT kind, count(*) AS n FROM events GROUP BY kind ORDER BY kind) x;

SELECT string_agg(x::text, ';' ORDER BY x.id) FROM sparse x;

SELECT s = s FROM sparse s ORDER BY id;

SELECT pg_typeof(s)::text FROM sparse s LIMIT 1;

-- Samples.
SELECT count(*) >= 0 FROM events TABLESAMPLE BERNOULLI (50);

SELECT count(*) FROM events TABLESAMPLE BERNOULLI (100);

SELECT id FROM events TABLESAMPLE SYSTEM (100) WHERE id < 5 ORDER BY id;

-- refused: join
SELECT e.id FROM events e TABLESAMPLE BERNOULLI (100) JOIN sparse s ON s.n = e.kind WHERE e.id < 9 ORDER BY 1;

-- refused: table-sample
SELECT count(*) FROM events TABLESAMPLE BERNOULLI (100) REPEATABLE (1);

SELECT max(title) FROM events TABLESAMPLE BERNOULLI (100);
