-- Reference tables, local tables, no table, the catalog.

SELECT 1, 'two', NULL, 3.50, now() > '2020-01-01';

SELECT * FROM generate_series(1, 3) n ORDER BY n;

SELECT * FROM kinds ORDER BY kind;

SELECT count(*) FROM kinds;

INSERT INTO kinds VALUES (7, 'seven'), (8, 'eight');

INSERT INTO kinds VALUES (9, 'nine') RETURNING *;

UPDATE kinds SET name = upper(name);

DELETE FROM kinds WHERE kind = 7;

-- fails: 23505
INSERT INTO kinds VALUES (8, 'again');

SELECT * FROM audit ORDER BY id;

INSERT INTO audit VALUES (10, 'ten');

UPDATE audit SET note = 'x' WHERE id = 10;

SELECT a.note, k.name FROM audit a JOIN kinds k ON k.kind = a.id ORDER BY 1, 2;

SELECT relname, relkind FROM pg_class WHERE relname IN ('events', 'lines') ORDER BY 1;

SELECT column_name, data_type FROM information_schema.columns WHERE table_name = 'events' ORDER BY ordinal_position;

SELECT 'events'::regclass::text;

SELECT to_regclass('nowhere');

SELECT pg_typeof(1), 1::int8;
