-- INSERT of rows that belong elsewhere than where they are made.

INSERT INTO things SELECT tag, kind FROM events WHERE tag IS NOT NULL AND id <= 20 ON CONFLICT DO NOTHING;

INSERT INTO sparse SELECT id + 1000, kind FROM events WHERE id < 40 RETURNING id, n;

INSERT INTO sparse (n, id) SELECT count(*), 2000 + coalesce(kind, 9) FROM events GROUP BY kind;

INSERT INTO sparse SELECT 3000 + id, n FROM sparse;

INSERT INTO sparse AS s (id, n) SELECT id + 1000, -1 FROM events WHERE id < 10 ON CONFLICT (id) DO UPDATE SET n = s.n + excluded.n RETURNING s.id, s.n;

INSERT INTO people SELECT DISTINCT label || '!', kind FROM events WHERE label IS NOT NULL AND id < 100 ON CONFLICT (name) DO NOTHING;

INSERT INTO lines SELECT id, 100, 'new', NULL FROM events WHERE kind = 3;

INSERT INTO lines (event_id, no, what, qty) SELECT l.event_id + 1, 200 + l.no, l.what, s.n FROM lines l JOIN sparse s ON s.n = l.qty WHERE l.no < 3 AND s.id < 1000 ON CONFLICT DO NOTHING;

INSERT INTO sparse SELECT g, g * 2 FROM generate_series(50001, 50030) g;

INSERT INTO sparse SELECT kind + 6000, 1 FROM kinds;

INSERT INTO sparse SELECT id + 7000, 1 FROM audit;

INSERT INTO audit SELECT id + 100, title FROM events WHERE id < 30 ORDER BY title, id LIMIT 7;

INSERT INTO audit (note, id) SELECT label, id + 1000 FROM events WHERE id BETWEEN 50 AND 60 RETURNING *;

INSERT INTO kinds SELECT 50 + count(*)::int, 'of events' FROM events;

INSERT INTO sparse SELECT 8000 + id FROM events WHERE false;

INSERT INTO sparse WITH x AS (SELECT id, kind FROM events WHERE id < 20) SELECT id + 9000, kind FROM x UNION ALL SELECT 9500 + id, 0 FROM x;

INSERT INTO odds (id, price, cost, pad, net, wait, hour, bits) SELECT id + 500, amount % 1000, ratio_less, 'ab ', '10.0.0.1', '1 day', '10:00+02', B'101' FROM (SELECT id, abs(amount) AS amount, 12.345 AS ratio_less FROM events WHERE id < 9 AND amount IS NOT NULL) s;

-- refused: insert-select
INSERT INTO odds (id, tags) SELECT id + 600, ARRAY[kind] FROM events WHERE id < 9;

INSERT INTO odds (id, bits, pad, code, small, place, span) SELECT id + 700, bits, pad, code, small, place, span FROM odds WHERE id < 30;

-- fails: 23505
INSERT INTO sparse SELECT 1 + id - id, n FROM sparse;

-- fails: 23514
INSERT INTO odds (id, price) SELECT id + 800, -1 FROM events WHERE id < 3;

-- fails: 22001
INSERT INTO odds (id, pad) SELECT id + 800, repeat('x', 6) FROM events WHERE id < 3;

-- fails: 42804
INSERT INTO sparse SELECT id, label FROM events;

-- fails: 22003
INSERT INTO sparse SELECT id + 3000000000, 1 FROM events;

-- fails: 23502
INSERT INTO people SELECT NULLIF(label, label), 1 FROM events WHERE id < 9;

-- fails: 22012
INSERT INTO sparse SELECT 10000 + id, 1 / (id - 5)::int FROM events WHERE id < 10;

INSERT INTO sparse (id) SELECT 99 FROM events WHERE id < 2;

-- refused: view
INSERT INTO known (id, sort) SELECT id + 700, 1 FROM sparse WHERE id < 0;

INSERT INTO events (id, label) SELECT id + 1000, label FROM known WHERE sort = 2;

SELECT count(*), sum(n) FROM sparse;

INSERT INTO sparse SELECT * FROM unnest(ARRAY[60001, 60002, 60003, 60004], '{1,2,NULL,4}'::int[]) ON CONFLICT (id) DO NOTHING;

SELECT a, b FROM unnest('{1,2,3}'::int8[], '{x,y}'::text[]) AS r (a, b) JOIN sparse ON id = a ORDER BY a;
