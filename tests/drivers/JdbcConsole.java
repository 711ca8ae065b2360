// The console through JDBC, which speaks the extended protocol and makes its own settings when it connects.

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;

public class JdbcConsole {
    public static void main(String[] arguments) throws Exception {
        String[] parts = arguments[0].split("://|:|@|/");
        String url = "jdbc:postgresql://" + parts[3] + ":" + parts[4] + "/" + parts[5];
        try (Connection console = DriverManager.getConnection(url + "?ApplicationName=jdbc", parts[1], parts[2]);
                Statement statement = console.createStatement()) {
            try (ResultSet version = statement.executeQuery("SHOW VERSION")) {
                check(version.next() && version.getString("version").startsWith("pgring "), "the version");
            }
            int slots = 0;
            try (ResultSet ranges = statement.executeQuery("SHOW SLOTS")) {
                while (ranges.next()) {
                    slots += ranges.getInt("slots");
                }
            }
            check(slots == 16384, slots + " slots");
            // After five times it prepares a statement, and asks for binary results.
            try (PreparedStatement prepared = console.prepareStatement("SHOW STATS")) {
                for (int i = 0; i < 10; i++) {
                    try (ResultSet stats = prepared.executeQuery()) {
                        check(stats.next() && stats.getLong("total_query_count") >= 0, "counts");
                        check(stats.getMetaData().getColumnName(1).equals("database"), "names");
                    }
                }
            }
            try (ResultSet moves = statement.executeQuery("SHOW REBALANCE")) {
                check(!moves.next(), "no move");
                check(moves.getMetaData().getColumnTypeName(7).equals("int8"), "types");
            }
            check(!statement.execute("PAUSE") && !statement.execute("RESUME"), "no rows");
            try {
                statement.executeQuery("SELECT 1");
                check(false, "SQL");
            } catch (SQLException error) {
                check(error.getSQLState().equals("0A000"), error.getSQLState());
            }
            // A driver that begins a transaction is told what to do.
            console.setAutoCommit(false);
            try {
                statement.executeQuery("SHOW VERSION");
                check(false, "a transaction");
            } catch (SQLException error) {
                check(error.getSQLState().equals("0A000") && error.getMessage().contains("autocommit"), error.getMessage());
            }
        }
    }

    private static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }
}
