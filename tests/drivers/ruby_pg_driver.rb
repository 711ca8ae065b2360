# What Rails' driver (the gem pg, over libpq) and Rails' PostgreSQL adapter through it ask of a server. ARGV[0] is the URL
# of a database with an empty table accounts; ends with an exception if anything is not as PostgreSQL's documentation says.

require 'pg'

URL = ARGV.fetch(0)

def same(got, wanted, what = nil)
  raise "#{what}: got #{got.inspect}, wanted #{wanted.inspect}" unless got == wanted
end

def fails_with(error)
  yield
rescue error => raised
  raised
else
  raise "#{error} should have been raised"
end

# What the adapter says once to each new connection.
def configure(connection)
  connection.set_client_encoding('unicode')
  connection.exec('SET client_min_messages TO warning')
  connection.exec('SET standard_conforming_strings = on')
  connection.exec('SET intervalstyle = iso_8601')
  connection.exec("SET SESSION timezone TO 'UTC'")
  connection.exec('SET statement_timeout TO 60000')
  same(connection.exec('SHOW max_identifier_length').getvalue(0, 0), '63')
  same(connection.exec('SHOW search_path').getvalue(0, 0), '"$user", public')
  same(connection.parameter_status('standard_conforming_strings'), 'on')
  same(connection.parameter_status('TimeZone'), 'UTC')
  raise 'a version' unless connection.server_version >= 140_000
end

def connect
  PG.connect(URL).tap { |connection| configure(connection) }
end

def type_maps(connection)
  known = connection.exec("SELECT t.oid, t.typname, t.typelem, t.typdelim, t.typinput, r.rngsubtype, t.typtype \
    FROM pg_type t LEFT JOIN pg_range r ON t.oid = r.rngtypid \
    WHERE t.typname IN ('int8', 'text', 'timestamptz', 'numeric', '_text') OR t.typtype IN ('r', 'e', 'd')")
  oids = known.to_h { |row| [row['typname'], row['oid'].to_i] }
  same(oids.values_at('int8', 'text', 'numeric', '_text'), [20, 25, 1700, 1009])

  connection.type_map_for_results = PG::BasicTypeMapForResults.new(connection)
  connection.type_map_for_queries = PG::BasicTypeMapForQueries.new(connection)
  connection.exec_params('INSERT INTO accounts (aid, name, balance, price, opened, tags) VALUES ($1, $2, $3, $4::numeric, $5, $6)',
                         [1, 'Ada', 10, '12.50', Time.utc(2024, 2, 29, 12), ['a', 'b c', nil]])
  row = connection.exec_params('SELECT * FROM accounts WHERE aid = $1', [1]).first
  same(row.values_at('aid', 'name', 'balance', 'tags'), [1, 'Ada', 10, ['a', 'b c', nil]])
  same(row['price'], BigDecimal('12.50'))
  same(row['opened'].utc, Time.utc(2024, 2, 29, 12))
  binary = connection.exec_params('SELECT aid, photo FROM accounts WHERE aid = $1', [1], 1)
  same([binary.fformat(0), binary.getvalue(0, 0), binary.getvalue(0, 1)], [1, 1, nil])
  connection.type_map_for_results = PG::TypeMapAllStrings.new
  connection.type_map_for_queries = PG::TypeMapAllStrings.new
end

def statements(connection)
  connection.prepare('a1', 'SELECT name, balance FROM accounts WHERE aid = $1 LIMIT $2')
  same(connection.describe_prepared('a1').nfields, 2)
  same(connection.exec_prepared('a1', [1, 1]).values, [['Ada', '10']])
  ids = (2..30).to_a
  connection.prepare('a2', 'INSERT INTO accounts (aid, name, balance) VALUES ($1, $2, $3) RETURNING aid')
  ids.each { |id| same(connection.exec_prepared('a2', [id, "n#{id}", id * 2]).getvalue(0, 0), id.to_s) }
  same(connection.exec_prepared('a1', [17, 1]).values, [['n17', '34']])
  fails_with(PG::DuplicatePstatement) { connection.prepare('a1', 'SELECT 1') }
  connection.exec('DEALLOCATE a1')
  fails_with(PG::InvalidSqlStatementName) { connection.exec_prepared('a1', [1, 1]) }
  connection.exec('DEALLOCATE ALL')
  fails_with(PG::InvalidSqlStatementName) { connection.exec_prepared('a2', [1, 'x', 1]) }

  inserted = connection.exec("INSERT INTO accounts (aid, name) VALUES (30, 'again'), (31, 'n31'), (32, 'n32') " \
                             'ON CONFLICT (aid) DO NOTHING RETURNING aid')
  same([inserted.column_values(0).sort, inserted.cmd_tuples], [%w[31 32], 2])
  page = connection.exec_params('SELECT aid FROM accounts WHERE aid > $1 ORDER BY aid ASC LIMIT $2', [10, 5])
  same(page.column_values(0), %w[11 12 13 14 15])
  preload = connection.exec_params('SELECT aid FROM accounts WHERE aid IN ($1, $2, $3) ORDER BY aid', [3, 5, 99])
  same(preload.column_values(0), %w[3 5])

  streamed = []
  connection.send_query('SELECT aid FROM accounts')
  connection.set_single_row_mode
  connection.get_result.stream_each_row { |row| streamed << row[0].to_i }
  connection.get_result
  same(streamed.sort, (1..32).to_a)
end

def errors(connection)
  error = fails_with(PG::UniqueViolation) { connection.exec('INSERT INTO accounts (aid) VALUES (1)') }
  fields = [PG::PG_DIAG_SQLSTATE, PG::PG_DIAG_TABLE_NAME, PG::PG_DIAG_CONSTRAINT_NAME]
  same(fields.map { |field| error.result.error_field(field) }, %w[23505 accounts accounts_pkey])
  fails_with(PG::CheckViolation) { connection.exec('UPDATE accounts SET balance = -1 WHERE aid = 1') }
  error = fails_with(PG::UndefinedColumn) { connection.exec('SELECT nothing FROM accounts WHERE aid = 1') }
  same(error.result.error_field(PG::PG_DIAG_STATEMENT_POSITION), '8')
  fails_with(PG::SyntaxError) { connection.exec('SELEC 1') }
end

def transactions(connection)
  balance = ->(id) { connection.exec_params('SELECT balance FROM accounts WHERE aid = $1', [id]).getvalue(0, 0).to_i }
  fails_with(RuntimeError) do
    connection.transaction do
      connection.exec('UPDATE accounts SET balance = balance + 1')
      raise 'no'
    end
  end
  same([balance.(1), balance.(2)], [10, 4])

  connection.exec('BEGIN ISOLATION LEVEL READ COMMITTED')
  connection.exec('UPDATE accounts SET balance = 100 WHERE aid = 1')
  connection.exec('SAVEPOINT active_record_1')
  connection.exec('UPDATE accounts SET balance = 200 WHERE aid = 2')
  fails_with(PG::UniqueViolation) { connection.exec('INSERT INTO accounts (aid) VALUES (3)') }
  same(connection.transaction_status, PG::PQTRANS_INERROR)
  fails_with(PG::InFailedSqlTransaction) { connection.exec('SELECT 1') }
  connection.exec('ROLLBACK TO SAVEPOINT active_record_1')
  same([balance.(1), balance.(2)], [100, 4])
  connection.exec('SAVEPOINT active_record_1')
  connection.exec('UPDATE accounts SET balance = 300 WHERE aid = 3')
  connection.exec('RELEASE SAVEPOINT active_record_1')
  same(connection.transaction_status, PG::PQTRANS_INTRANS)
  connection.exec('COMMIT')
  same(connection.transaction_status, PG::PQTRANS_IDLE)
  same([balance.(1), balance.(2), balance.(3)], [100, 4, 300])
end

def pipelines(connection)
  connection.enter_pipeline_mode
  (1..8).each { |id| connection.send_query_params('SELECT name FROM accounts WHERE aid = $1', [id]) }
  connection.pipeline_sync
  connection.send_query_params('UPDATE accounts SET balance = 1 WHERE aid = $1', [4])
  connection.send_query_params('SELECT 1/0', [])
  connection.send_query_params('UPDATE accounts SET balance = 1 WHERE aid = $1', [5])
  connection.pipeline_sync
  names = (1..8).map do
    name = connection.get_result.check.getvalue(0, 0)
    same(connection.get_result, nil)
    name
  end
  same(names, ['Ada'] + (2..8).map { |id| "n#{id}" })
  same(connection.get_result.result_status, PG::PGRES_PIPELINE_SYNC)
  statuses = (1..3).map do
    status = connection.get_result.result_status
    connection.get_result
    status
  end
  same(statuses, [PG::PGRES_COMMAND_OK, PG::PGRES_FATAL_ERROR, PG::PGRES_PIPELINE_ABORTED])
  same(connection.get_result.result_status, PG::PGRES_PIPELINE_SYNC)
  connection.exit_pipeline_mode
  same(connection.exec('SELECT balance FROM accounts WHERE aid IN (4, 5) ORDER BY aid').column_values(0), %w[8 10])
end

def copies(connection)
  encoder = PG::TextEncoder::CopyRow.new
  connection.copy_data('COPY accounts (aid, name, balance) FROM STDIN', encoder) do
    (101..200).each { |id| connection.put_copy_data([id.to_s, "tab\t#{id}", nil]) }
  end
  decoder = PG::TextDecoder::CopyRow.new
  rows = []
  connection.copy_data('COPY accounts (aid, name, balance) TO STDOUT', decoder) do
    while (row = connection.get_copy_data)
      rows << row if row[0].to_i > 100
    end
  end
  same(rows.sort, (101..200).map { |id| [id.to_s, "tab\t#{id}", nil] })
  fails_with(PG::UniqueViolation) do
    connection.copy_data('COPY accounts (aid) FROM STDIN', encoder) do
      [['201'], ['202'], ['1']].each { |row| connection.put_copy_data(row) }
    end
  end
  fails_with(RuntimeError) do
    connection.copy_data('COPY accounts (aid) FROM STDIN', encoder) do
      connection.put_copy_data(['203'])
      raise 'no'
    end
  end
  same(connection.exec('SELECT aid FROM accounts WHERE aid IN (201, 202, 203)').ntuples, 0)
end

def cancels(connection)
  started = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  connection.send_query('SELECT pg_sleep(30)')
  sleep 0.3
  same(connection.cancel, nil)
  fails_with(PG::QueryCanceled) { connection.get_last_result }
  took = Process.clock_gettime(Process::CLOCK_MONOTONIC) - started
  raise "a cancel took #{took} s" if took > 15
  same(connection.exec('SELECT 1').getvalue(0, 0), '1')
end

def notifications(connection)
  connection.exec('LISTEN cable')
  other = connect
  other.exec("NOTIFY cable, 'hello'")
  other.exec_params('SELECT pg_notify($1, $2)', %w[cable again])
  heard = 2.times.map { connection.wait_for_notify(15) { |channel, _pid, payload| break [channel, payload] } }
  same(heard, [%w[cable hello], %w[cable again]])
  other.close
  connection.exec('UNLISTEN *')
end

def notices(connection)
  said = []
  connection.set_notice_processor { |message| said << message }
  connection.exec('SET client_min_messages TO notice')
  connection.exec('DROP TABLE IF EXISTS nothing')
  same(said, ["NOTICE:  table \"nothing\" does not exist, skipping\n"])
  connection.exec('SET client_min_messages TO warning')
  connection.exec('DROP TABLE IF EXISTS nothing')
  same(said.length, 1)
  connection.set_notice_processor
end

# A migration: one session's lock around transactions that change the schema.
def migrations(connection)
  lock = 7_133_218_412_345_678_901
  same(connection.exec("SELECT pg_try_advisory_lock(#{lock})").getvalue(0, 0), 't')
  other = connect
  same(other.exec("SELECT pg_try_advisory_lock(#{lock})").getvalue(0, 0), 'f')
  connection.exec('CREATE TABLE schema_migrations (version varchar NOT NULL PRIMARY KEY)')
  connection.exec('CREATE TABLE ar_internal_metadata (key varchar NOT NULL PRIMARY KEY, value varchar, ' \
                  'created_at timestamp(6) NOT NULL, updated_at timestamp(6) NOT NULL)')
  connection.transaction do
    connection.exec("CREATE TABLE posts (id bigserial PRIMARY KEY, title varchar(80) DEFAULT 'none' NOT NULL, body text, " \
                    'tags varchar[], at timestamp(6) DEFAULT CURRENT_TIMESTAMP NOT NULL)')
    connection.exec('CREATE INDEX index_posts_on_title ON posts (title)')
    connection.exec_params('INSERT INTO schema_migrations (version) VALUES ($1) RETURNING version', ['20240101000000'])
  end
  fails_with(PG::DuplicateTable) do
    connection.transaction do
      connection.exec("INSERT INTO schema_migrations (version) VALUES ('20240102000000')")
      connection.exec('CREATE TABLE posts (id int)')
    end
  end
  connection.exec('CREATE INDEX CONCURRENTLY index_posts_on_at ON posts (at)')
  versions = connection.exec('SELECT "schema_migrations"."version" FROM "schema_migrations" ORDER BY version ASC')
  same(versions.column_values(0), ['20240101000000'])
  same(connection.exec("SELECT pg_advisory_unlock(#{lock})").getvalue(0, 0), 't')
  same(other.exec("SELECT pg_try_advisory_lock(#{lock})").getvalue(0, 0), 't')
  other.close
end

# What the adapter asks of the catalog to know a table.
def catalog(connection)
  columns = connection.exec(<<~SQL)
    SELECT a.attname, format_type(a.atttypid, a.atttypmod), pg_get_expr(d.adbin, d.adrelid), a.attnotnull,
           a.atttypid, a.atttypmod, c.collname, col_description(a.attrelid, a.attnum), a.attidentity, a.attgenerated
      FROM pg_attribute a
           LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
           LEFT JOIN pg_type t ON t.oid = a.atttypid
           LEFT JOIN pg_collation c ON c.oid = a.attcollation AND a.attcollation <> t.typcollation
     WHERE a.attrelid = '"posts"'::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum
  SQL
  same(columns.values.map { |row| row.values_at(0, 1, 2, 3) },
       [['id', 'bigint', "nextval('posts_id_seq'::regclass)", 't'],
        ['title', 'character varying(80)', "'none'::character varying", 't'],
        ['body', 'text', nil, 'f'], ['tags', 'character varying[]', nil, 'f'],
        ['at', 'timestamp(6) without time zone', 'CURRENT_TIMESTAMP', 't']])
  keys = connection.exec(<<~SQL)
    SELECT a.attname FROM (SELECT indrelid, indkey, generate_subscripts(indkey, 1) AS place FROM pg_index
      WHERE indrelid = '"accounts"'::regclass AND indisprimary) i
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[i.place] ORDER BY i.place
  SQL
  same(keys.values, [['aid']])
  tables = connection.exec("SELECT c.relname FROM pg_class c LEFT JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE n.nspname = ANY (current_schemas(false)) AND c.relkind IN ('r', 'p') ORDER BY c.relname")
  same(tables.column_values(0), %w[accounts ar_internal_metadata posts schema_migrations])
  indexes = connection.exec("SELECT i.relname, d.indisunique, pg_get_indexdef(d.indexrelid) FROM pg_class t \
    JOIN pg_index d ON t.oid = d.indrelid JOIN pg_class i ON d.indexrelid = i.oid \
    WHERE t.relname = 'posts' AND NOT d.indisprimary ORDER BY i.relname")
  same(indexes.column_values(0), %w[index_posts_on_at index_posts_on_title])
  connection.exec('DROP TABLE posts, ar_internal_metadata, schema_migrations')
end

connection = connect
type_maps(connection)
statements(connection)
errors(connection)
transactions(connection)
pipelines(connection)
copies(connection)
cancels(connection)
notifications(connection)
notices(connection)
migrations(connection)
catalog(connection)
same(connection.exec('DISCARD ALL').cmd_status, 'DISCARD ALL')
connection.reset
configure(connection)
same(PG::Connection.ping(URL), PG::PQPING_OK)
connection.close
