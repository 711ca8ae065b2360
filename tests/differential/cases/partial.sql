-- Aggregates that the shards compute in parts.

SELECT count(*) FROM events;

SELECT count(*), count(kind), sum(kind), avg(kind), min(kind), max(kind), sum(id), avg(id) FROM events;

SELECT sum(amount), avg(amount), min(amount), max(amount) FROM events WHERE amount <> 'NaN';

SELECT sum(amount), avg(amount), min(amount), max(amount), count(amount) FROM events;

SELECT min(ratio), max(ratio), count(ratio) FROM events WHERE ratio <> 0;

SELECT min(label), max(label), min(title), max(title), min(at), max(at), min(day), max(day) FROM events;

SELECT bool_and(ok), bool_or(ok), every(ok), bit_and(kind), bit_or(kind), bit_xor(kind), bit_xor(id) FROM events;

SELECT count(*), sum(kind), avg(kind), min(label), bool_or(ok), bit_and(kind), avg(amount), sum(amount) FROM events WHERE kind = 12345;

SELECT kind, count(*) FROM events WHERE kind = 12345 GROUP BY kind;

SELECT count(*) FROM sparse;

SELECT sum(n), avg(n), min(n), max(n), count(n) FROM sparse;

SELECT count(*) + 1 AS more, -count(*), count(*)::text, count(*)::text || '!', sum(kind) / count(kind), round(avg(kind), 2) FROM events;

SELECT coalesce(sum(kind), 0), nullif(count(*), 3), CASE WHEN count(*) > 5 THEN max(label) ELSE min(label) END, greatest(min(id), 7) FROM events;

SELECT count(*) FILTER (WHERE ok), count(*) FILTER (WHERE NOT ok), sum(kind) FILTER (WHERE kind > 2), avg(id) FILTER (WHERE kind IS NULL), min(label) FILTER (WHERE label LIKE 'z%') FROM events;

SELECT sum(kind * 2 + 1), sum(kind * id), avg(amount * 2), sum(CASE WHEN ok THEN 1 ELSE 0 END), sum(id % 7), max(kind + 0.5), sum(-kind), sum(coalesce(kind, 0)) FROM events WHERE amount <> 'NaN';

SELECT sum(extract(year FROM day)), max(day + 1), min(day - 7), max(at - '1 day'::interval), min(date_trunc('month', at)) FROM events WHERE isfinite(at);

SELECT max(length(label)), min(lower(title)), max(upper(label)), max(label || '!'), min(title || label COLLATE "C"), max(substring(label FROM 1 FOR 1)), max(id::text), min(kind::numeric(10, 2)) FROM events;

SELECT kind, count(*) FROM events GROUP BY kind;

SELECT kind, count(*), sum(amount), avg(id) FROM events GROUP BY kind ORDER BY kind;

SELECT kind, ok, count(*) AS n FROM events GROUP BY kind, ok HAVING count(*) > 5 AND kind IS NOT NULL ORDER BY n DESC, kind, ok LIMIT 4;

SELECT e.kind, count(*) FROM events AS e WHERE e.id > 20 GROUP BY e.kind ORDER BY e.kind DESC NULLS LAST OFFSET 1;

SELECT title, count(*) FROM events GROUP BY title ORDER BY title NULLS FIRST;

SELECT title, label, max(id) FROM events GROUP BY 1, 2 ORDER BY title, label COLLATE "C";

SELECT label, min(title) FROM events GROUP BY label ORDER BY min(title), label;

SELECT kind % 3 AS rest, count(*) FROM events GROUP BY rest ORDER BY rest;

SELECT kind % 3 + 1, count(*) FROM events GROUP BY kind % 3 HAVING kind % 3 < 2 ORDER BY kind % 3;

SELECT (kind % 3) * 2, count(*) FROM events GROUP BY kind % 3 ORDER BY 1;

SELECT date_trunc('month', at), count(*) FROM events GROUP BY date_trunc('month', at) ORDER BY date_trunc('month', at) LIMIT 5;

SELECT extract(year FROM day) AS year, count(*), sum(kind) FROM events GROUP BY 1 ORDER BY 1 DESC NULLS LAST;

SELECT CASE WHEN kind < 3 THEN 'low' WHEN kind >= 3 THEN 'high' END AS size, count(*) FROM events GROUP BY size ORDER BY size;

SELECT lower(title), count(*) FROM events GROUP BY lower(title) ORDER BY lower(title);

SELECT tag, count(*) FROM events WHERE id < 40 GROUP BY tag ORDER BY tag;

SELECT day, ok, count(raw) FROM events GROUP BY day, ok ORDER BY day, ok LIMIT 6;

SELECT kind IS NULL, count(*) FROM events GROUP BY kind IS NULL ORDER BY 1;

SELECT ok, kind, count(*), grouping(ok, kind) FROM events GROUP BY CUBE (ok, kind) ORDER BY 1, 2, 4;

SELECT ok, kind, count(*), grouping(kind) FROM events WHERE kind = 12345 GROUP BY ROLLUP (ok, kind);

SELECT ok, kind, sum(id) FROM events GROUP BY ok, GROUPING SETS ((kind), ()) ORDER BY 1, 2, 3;

SELECT DISTINCT kind FROM events ORDER BY kind;

SELECT DISTINCT kind, ok FROM events ORDER BY ok, kind LIMIT 5;

SELECT DISTINCT kind % 2 AS odd, title FROM events ORDER BY title, odd;

SELECT DISTINCT title FROM events ORDER BY title DESC NULLS LAST LIMIT 3;

SELECT DISTINCT count(*) FROM events GROUP BY kind ORDER BY 1;

SELECT DISTINCT ON (ok) ok, kind, count(*) FROM events GROUP BY ok, kind ORDER BY ok, count(*) DESC, kind;

SELECT kind, count(*), rank() OVER (ORDER BY count(*) DESC, kind), sum(count(*)) OVER (ORDER BY kind) FROM events GROUP BY kind ORDER BY kind;

SELECT kind, sum(sum(id)) OVER w, avg(count(*)) OVER w FROM events GROUP BY kind WINDOW w AS (ORDER BY kind ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) ORDER BY kind;

SELECT kind, count(*) FROM events GROUP BY kind ORDER BY count(*) DESC, kind FETCH FIRST 3 ROWS WITH TIES;

SELECT count(*) FROM events ORDER BY count;

SELECT kind, count(*) FROM events GROUP BY kind ORDER BY count, kind;

SELECT e.kind, l.no, count(*), sum(l.qty), avg(l.qty) FROM events e JOIN lines l ON l.event_id = e.id GROUP BY e.kind, l.no ORDER BY 1, 2;

SELECT e.kind, count(l.no), count(*) FROM events e LEFT JOIN lines l ON l.event_id = e.id GROUP BY e.kind ORDER BY e.kind;

SELECT k.name, count(*), max(e.title) FROM events e JOIN kinds k ON k.kind = e.kind GROUP BY k.name ORDER BY k.name;

SELECT k.name, count(*) FROM events e LEFT JOIN kinds k USING (kind) GROUP BY k.name ORDER BY k.name NULLS FIRST;

SELECT kind, count(*) FROM events e JOIN kinds k USING (kind) GROUP BY kind ORDER BY kind;

SELECT count(*), max(e.id) FROM events e WHERE EXISTS (SELECT 1 FROM lines l WHERE l.event_id = e.id AND l.qty > 3);

SELECT kind, count(*) FROM events e WHERE id IN (SELECT event_id FROM lines WHERE qty > 2) GROUP BY kind ORDER BY kind;

SELECT kind, sum(n) FROM (SELECT kind, id AS n FROM events WHERE id < 100) x GROUP BY kind ORDER BY kind;

SELECT n % 4, count(*) FROM (SELECT id AS n, count(*) AS many FROM events JOIN lines ON event_id = id GROUP BY id) x WHERE many > 1 GROUP BY n % 4 ORDER BY 1;

SELECT mood::text, count(*), min(mood)::text, max(mood) > 'sad' FROM odds GROUP BY mood ORDER BY mood;

SELECT max(tags), min(tags), max(words), min(price), max(price), sum(price), avg(price), min(cost), avg(cost) FROM odds;

SELECT price, count(*) FROM odds GROUP BY price ORDER BY price;

SELECT cost, pad, count(*), max(pad) || '|' FROM odds GROUP BY cost, pad ORDER BY cost, pad;

SELECT sum(wait), avg(wait), min(wait), max(wait) FROM odds;

SELECT ok, avg(wait), sum(wait * 2) FROM odds JOIN events USING (id) GROUP BY ok ORDER BY ok;

SELECT max(hour), count(doc), count(span), count(pair), count(place) FROM odds;

SELECT doc ->> 'a', count(*) FROM odds GROUP BY 1 ORDER BY 1;

SELECT tags, count(*) FROM odds GROUP BY tags ORDER BY tags;

SELECT span, count(*) FROM odds GROUP BY span ORDER BY span;

SELECT bits, count(*) FROM odds GROUP BY bits ORDER BY bits;

SELECT "Odd ""Name", count("Odd ""Name") FROM odds GROUP BY "Odd ""Name" ORDER BY "Odd ""Name" COLLATE "C";

SELECT paid, max(paid), sum(paid) FROM odds GROUP BY paid ORDER BY paid;

SELECT small, sum(small), max(small) FROM odds WHERE small <> 'NaN' GROUP BY small ORDER BY small;

SELECT code, title, count(*) FROM odds GROUP BY code, title ORDER BY title, code;

SELECT net, count(*) FROM odds GROUP BY net ORDER BY net;

SELECT pg_typeof(count(*))::text, pg_typeof(sum(kind))::text, pg_typeof(sum(id))::text, pg_typeof(avg(kind))::text, pg_typeof(min(label))::text, pg_typeof(bit_xor(kind))::text FROM events;

SELECT pg_typeof(price)::text, pg_typeof(pad)::text, pg_typeof(max(pad))::text, pg_typeof(mood)::text, pg_typeof(max(mood))::text FROM odds GROUP BY price, pad, mood LIMIT 1;

SELECT count(ALL kind), max(DISTINCT kind), min(DISTINCT label), bool_or(DISTINCT ok), count(DISTINCT kind), sum(DISTINCT kind) FROM events;

SELECT count(DISTINCT kind), count(*) FROM events;

SELECT sum(ratio), avg(ratio) FROM events WHERE ratio BETWEEN -5 AND 5;

SELECT 1 FROM events HAVING count(*) > 5;

SELECT 1 FROM events HAVING count(*) > 500;

SELECT 'x' AS x, count(*) FROM events GROUP BY x;

SELECT kind, count(*) FROM events GROUP BY kind, 1 ORDER BY 1;

SELECT count(*) -- a comment; SELECT
FROM /* FROM (a) */ events -- WHERE
WHERE id > 5 -- GROUP BY
;

SELECT upper(label) /* grouped */ , count(*) -- many
FROM events GROUP BY upper ( label ) ORDER BY upper(label) COLLATE "C";

-- fails: 42803
SELECT kind, label, count(*) FROM events GROUP BY kind;

-- fails: 42803
SELECT sum(count(*)) FROM events;

-- fails: 42883
SELECT sum(label) FROM events;

-- fails: 42883
SELECT count(*) FROM events WHERE label > 5;

-- fails: 42703
SELECT count(nothing) FROM events;

-- fails: 42703
SELECT count(*) FROM events WHERE nothing = 1;

-- fails: 22012
SELECT kind, sum(1 / (id - 7)) FROM events GROUP BY kind;

-- fails: 22012
SELECT kind, 1 / (count(*) - count(*)) FROM events GROUP BY kind;

-- fails: 22003
SELECT sum(id * 9223372036854775807) FROM events;

SELECT sum(9223372036854775807::bigint), avg(9223372036854775807::bigint) FROM events;

SELECT kind, count(*), random() < 2 FROM events GROUP BY kind ORDER BY kind;

SELECT count(*) FROM events WHERE random() < 2;

SELECT count(*), now() IS NOT NULL FROM events;

SELECT kind, (SELECT count(*) FROM sparse) FROM events GROUP BY kind ORDER BY kind;

SELECT kind, array_agg(id ORDER BY id), count(*) FROM events GROUP BY kind ORDER BY kind;

SELECT kind, string_agg(label, ',' ORDER BY id), sum(id) FROM events GROUP BY kind ORDER BY kind;

SELECT count(e.*), count(*) FROM events e;

SELECT max(e.id), count(*) FROM ONLY public.events e;

-- Distinct values: partial rows are grouped by them too.
SELECT count(DISTINCT kind), count(DISTINCT label), count(*), sum(id), avg(amount), max(title) FROM events;

SELECT kind, count(DISTINCT title), sum(DISTINCT id), avg(DISTINCT kind), count(DISTINCT kind) FROM events GROUP BY kind ORDER BY kind;

SELECT ok, array_agg(DISTINCT kind ORDER BY kind DESC NULLS LAST), string_agg(DISTINCT title, ', ' ORDER BY title), array_agg(DISTINCT label) FROM events GROUP BY ok ORDER BY ok;

SELECT e.kind, count(DISTINCT l.what), count(DISTINCT e.id), sum(l.qty) FROM events e LEFT JOIN lines l ON l.event_id = e.id GROUP BY ROLLUP (e.kind) HAVING count(DISTINCT l.no) > 1 ORDER BY 1, 2, count(DISTINCT l.what) DESC;

SELECT count(DISTINCT kind), sum(DISTINCT kind), avg(DISTINCT kind), array_agg(DISTINCT kind) FROM events WHERE id = -1 OR kind > 77;

SELECT count(DISTINCT amount), count(DISTINCT ratio), count(DISTINCT at), count(DISTINCT raw), count(DISTINCT ok) FROM events;

SELECT count(DISTINCT mood), count(DISTINCT pad), count(DISTINCT doc), count(DISTINCT price), count(DISTINCT wait) FROM odds;

SELECT count(DISTINCT kind) FILTER (WHERE ok), count(DISTINCT kind + 1), sum(DISTINCT amount) FROM events;

SELECT DISTINCT count(DISTINCT kind) FROM events GROUP BY ok, label ORDER BY 1;

SELECT rank() OVER (ORDER BY count(DISTINCT title), label), label FROM events GROUP BY label ORDER BY label;

-- fails: 42803
SELECT kind, count(DISTINCT kind) FROM events;

-- fails: 42803
SELECT ok, count(DISTINCT kind) FROM events GROUP BY ok ORDER BY kind;

-- fails: 42883
SELECT count(DISTINCT plain) FROM odds;

-- fails: 42P10
SELECT string_agg(DISTINCT label, ',' ORDER BY title) FROM events;

-- How numbers spread.
SELECT variance(kind), var_pop(id), var_samp(amount), stddev(kind), stddev_pop(id), stddev_samp(amount) FROM events;

SELECT kind, stddev(id), variance(amount), stddev(amount * 1000000), stddev_pop(amount / 7), count(*) FROM events WHERE amount <> 'NaN' GROUP BY kind ORDER BY kind;

SELECT ok, stddev(id) FILTER (WHERE kind > 2), var_pop(kind * id) FILTER (WHERE amount > 0), stddev(DISTINCT kind) FROM events GROUP BY ok ORDER BY ok;

SELECT stddev(id), var_pop(id), variance(id), stddev_pop(kind) FROM events WHERE id = 3 OR id = 33 AND kind > 99;

SELECT stddev(kind), var_pop(amount) FROM events WHERE kind = 77;

SELECT stddev(5), variance(0), stddev_pop(1.50) FROM events;

SELECT kind FROM events GROUP BY kind HAVING stddev(id) > 50 ORDER BY stddev(amount), round(variance(id), 3), kind;

SELECT stddev(n) FROM (SELECT id * 1e20 AS n FROM events) e;

SELECT stddev(cost), variance(cost), stddev(CASE WHEN id % 2 = 0 THEN 'Infinity'::numeric ELSE cost END), var_pop(id::numeric(30,12) / 3) FROM odds;

SELECT stddev(e.n), var_samp(e.n) FROM (SELECT (id::numeric ^ 5) / 3 AS n FROM events) e;
