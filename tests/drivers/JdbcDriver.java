// PgJDBC against the URL in the first argument: prepared on the server, batches, fetch size, transactions, errors,
// COPY, time-outs and cancel.

import java.io.StringReader;
import java.io.StringWriter;
import java.math.BigDecimal;
import java.net.URI;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Timestamp;
import java.util.Arrays;
import java.util.Properties;
import java.util.Timer;
import java.util.TimerTask;
import org.postgresql.PGConnection;
import org.postgresql.copy.CopyManager;

public final class JdbcDriver {
    interface Work {
        void run() throws Exception;
    }

    static void check(boolean condition, String what) {
        if (!condition) throw new AssertionError(what);
    }

    static void fails(String state, Work work) throws Exception {
        try {
            work.run();
        } catch (SQLException error) {
            check(state.equals(error.getSQLState()), state + " expected: " + error.getSQLState() + " " + error);
            return;
        }
        throw new AssertionError(state + " expected");
    }

    static Connection connect(String url, String... options) throws Exception {
        URI uri = new URI(url);
        String[] login = uri.getUserInfo().split(":", 2);
        Properties properties = new Properties();
        properties.setProperty("user", login[0]);
        properties.setProperty("password", login[1]);
        for (String option : options) properties.setProperty(option.split("=")[0], option.split("=")[1]);
        return DriverManager.getConnection("jdbc:postgresql://" + uri.getHost() + ":" + uri.getPort() + uri.getPath(), properties);
    }

    static int number(Connection connection, String sql) throws Exception {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(sql)) {
            check(rows.next(), sql);
            return rows.getInt(1);
        }
    }

    static void insertAndRead(Connection connection) throws Exception {
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO accounts VALUES (?, ?, ?, ?, ?, ?, ?)");
                PreparedStatement select = connection.prepareStatement("SELECT * FROM accounts WHERE aid = ?")) {
            Timestamp opened = Timestamp.valueOf("2024-02-29 12:30:00");
            for (int aid = 1; aid <= 40; aid++) {
                insert.setLong(1, aid);
                insert.setString(2, "näme " + aid);
                insert.setInt(3, aid * 10);
                insert.setBigDecimal(4, new BigDecimal("1.50"));
                insert.setTimestamp(5, opened);
                insert.setBytes(6, new byte[] {0, (byte) aid, -1});
                insert.setArray(7, connection.createArrayOf("text", new String[] {"a", null, "b,c"}));
                check(insert.executeUpdate() == 1, "one row");
                select.setLong(1, aid);
                try (ResultSet rows = select.executeQuery()) {
                    check(rows.next(), "row " + aid);
                    check(rows.getString("name").equals("näme " + aid), "name");
                    check(rows.getInt("balance") == aid * 10, "balance");
                    check(rows.getBigDecimal("price").equals(new BigDecimal("1.50")), "price");
                    check(rows.getTimestamp("opened").equals(opened), "opened");
                    check(Arrays.equals(rows.getBytes("photo"), new byte[] {0, (byte) aid, -1}), "photo");
                    check(!rows.next(), "one row only");
                }
            }
        }
        try (PreparedStatement many = connection.prepareStatement("SELECT aid FROM accounts WHERE aid = ANY (?) ORDER BY aid")) {
            many.setArray(1, connection.createArrayOf("int8", new Long[] {3L, 1L, 99L}));
            try (ResultSet rows = many.executeQuery()) {
                check(rows.next() && rows.getLong(1) == 1 && rows.next() && rows.getLong(1) == 3 && !rows.next(), "ANY");
            }
        }
    }

    static void prepared(Connection connection) throws Exception {
        // From the fifth execution on the driver uses a named statement and binary results.
        try (PreparedStatement select = connection.prepareStatement("SELECT balance, aid FROM accounts WHERE aid = ?")) {
            for (int round = 0; round < 3; round++) {
                for (int aid = 1; aid <= 40; aid++) {
                    select.setLong(1, aid);
                    try (ResultSet rows = select.executeQuery()) {
                        check(rows.next() && rows.getInt(1) == aid * 10 && rows.getLong(2) == aid, "aid " + aid);
                    }
                }
            }
            check(select.getMetaData().getColumnCount() == 2, "metadata");
        }
        try (PreparedStatement sorted = connection.prepareStatement("SELECT aid FROM accounts ORDER BY aid DESC LIMIT 3")) {
            for (int round = 0; round < 8; round++) {
                try (ResultSet rows = sorted.executeQuery()) {
                    for (int aid = 40; aid > 37; aid--) check(rows.next() && rows.getInt(1) == aid, "sorted");
                }
            }
        }
    }

    static void batches(Connection connection) throws Exception {
        try (PreparedStatement update = connection.prepareStatement("UPDATE accounts SET name = ? WHERE aid = ?")) {
            for (int aid = 1; aid <= 40; aid++) {
                update.setString(1, "n" + aid);
                update.setInt(2, aid);
                update.addBatch();
            }
            check(Arrays.stream(update.executeBatch()).sum() == 40, "a batch of 40");
        }
        try (PreparedStatement update = connection.prepareStatement("UPDATE accounts SET balance = ? WHERE aid = ?")) {
            for (int aid = 1; aid <= 3; aid++) {
                update.setInt(1, aid == 2 ? -1 : 1);
                update.setInt(2, aid);
                update.addBatch();
            }
            try {
                update.executeBatch();
                throw new AssertionError("a check constraint must fail");
            } catch (BatchUpdateException error) {
                check("23514".equals(error.getSQLState()), error.toString());
            }
        }
        try (Statement statement = connection.createStatement()) {
            statement.executeUpdate("UPDATE accounts SET balance = aid * 10");
        }
    }

    static void rewrittenBatch(String url) throws Exception {
        try (Connection connection = connect(url, "reWriteBatchedInserts=true");
                PreparedStatement insert = connection.prepareStatement("INSERT INTO accounts (aid, name) VALUES (?, ?)")) {
            for (int aid = 500; aid < 600; aid++) {
                insert.setInt(1, aid);
                insert.setString(2, "batch");
                insert.addBatch();
            }
            insert.executeBatch();
            try (Statement statement = connection.createStatement()) {
                check(statement.executeUpdate("DELETE FROM accounts WHERE aid >= 500") == 100, "a rewritten batch");
            }
        }
    }

    static void transactions(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            for (int aid = 1; aid <= 8; aid++) statement.executeUpdate("UPDATE accounts SET balance = balance + 1 WHERE aid = " + aid);
            Savepoint savepoint = connection.setSavepoint();
            fails("23514", () -> statement.executeUpdate("UPDATE accounts SET balance = -1 WHERE aid = 10"));
            fails("25P02", () -> statement.executeQuery("SELECT 1"));
            connection.rollback(savepoint);
            connection.commit();
            check(number(connection, "SELECT balance FROM accounts WHERE aid = 8") == 81, "committed");
            check(number(connection, "SELECT balance FROM accounts WHERE aid = 10") == 100, "rolled back");
            statement.executeUpdate("DELETE FROM accounts WHERE aid <= 10");
            connection.rollback();
            check(number(connection, "SELECT aid FROM accounts WHERE aid = 3") == 3, "rolled back");
            connection.rollback();
            // A fetch size makes portals that are read in pieces.
            statement.setFetchSize(7);
            try (ResultSet rows = statement.executeQuery("SELECT n FROM generate_series(1, 50) n ORDER BY n")) {
                for (int n = 1; n <= 50; n++) check(rows.next() && rows.getInt(1) == n, "row " + n);
                check(!rows.next(), "the end");
            }
            connection.commit();
        }
        connection.setAutoCommit(true);
        connection.setReadOnly(true);
        connection.setAutoCommit(false);
        fails("25006", () -> connection.createStatement().executeUpdate("DELETE FROM accounts WHERE aid = 1"));
        connection.rollback();
        connection.setAutoCommit(true);
        connection.setReadOnly(false);
    }

    static void failures(Connection connection) throws Exception {
        try (Statement statement = connection.createStatement()) {
            fails("42703", () -> statement.executeQuery("SELECT nothing FROM accounts WHERE aid = 1"));
            fails("23505", () -> statement.executeUpdate("INSERT INTO accounts (aid) VALUES (1)"));
            fails("42601", () -> statement.execute("SELEC"));
            fails("22012", () -> statement.executeQuery("SELECT 1/0"));
            statement.execute("DROP TABLE IF EXISTS nowhere");
            check(statement.getWarnings().getMessage().contains("does not exist, skipping"), "a warning");
        }
        check(connection.isValid(5), "the connection lives");
    }

    static void copies(Connection connection) throws Exception {
        CopyManager copy = connection.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder lines = new StringBuilder();
        for (int aid = 1000; aid < 1200; aid++) lines.append(aid).append(",\"copied, ").append(aid).append("\"\n");
        check(copy.copyIn("COPY accounts (aid, name) FROM STDIN (FORMAT csv)", new StringReader(lines.toString())) == 200, "copy in");
        StringWriter out = new StringWriter();
        check(copy.copyOut("COPY accounts (aid, name) TO STDOUT (FORMAT csv)", out) == 240, "copy out");
        check(out.toString().contains("1111,\"copied, 1111\"\n"), "its rows");
        fails("23505", () -> copy.copyIn("COPY accounts (aid) FROM STDIN", new StringReader("5000\n1\n")));
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery("SELECT 1 FROM accounts WHERE aid = 5000")) {
            check(!rows.next(), "nothing stays");
        }
    }

    static void cancels(Connection connection) throws Exception {
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            fails("57014", () -> statement.executeQuery("SELECT pg_sleep(30) FROM accounts WHERE aid = 4"));
            statement.setQueryTimeout(0);
            Timer timer = new Timer(true);
            timer.schedule(new TimerTask() {
                public void run() {
                    try {
                        statement.cancel();
                    } catch (SQLException error) {
                        error.printStackTrace();
                    }
                }
            }, 300);
            fails("57014", () -> statement.executeQuery("SELECT pg_sleep(30)"));
        }
        check(number(connection, "SELECT 1") == 1, "the connection lives");
    }

    public static void main(String[] arguments) throws Exception {
        String url = arguments[0];
        try (Connection connection = connect(url)) {
            insertAndRead(connection);
            prepared(connection);
            batches(connection);
            rewrittenBatch(url);
            transactions(connection);
            failures(connection);
            copies(connection);
            cancels(connection);
            try (ResultSet tables = connection.getMetaData().getTables(null, "public", "accounts", new String[] {"TABLE"})) {
                check(tables.next() && !tables.next(), "one table");
            }
            try (ResultSet keys = connection.getMetaData().getPrimaryKeys(null, "public", "accounts")) {
                check(keys.next() && keys.getString("COLUMN_NAME").equals("aid"), "its key");
            }
        }
        try (Connection simple = connect(url, "preferQueryMode=simple")) {
            try (PreparedStatement select = simple.prepareStatement("SELECT balance FROM accounts WHERE aid = ?")) {
                select.setInt(1, 9);
                try (ResultSet rows = select.executeQuery()) {
                    check(rows.next() && rows.getInt(1) == 90, "simple mode");
                }
            }
        }
    }
}
