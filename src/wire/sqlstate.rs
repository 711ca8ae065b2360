//! [`SqlState`]: the five-character codes of PostgreSQL's appendix A that the router raises or looks at.

use std::fmt;

/// A SQLSTATE: five characters of `0-9A-Z`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SqlState(pub [u8; 5]);

impl SqlState {
    /// The code as text; what is no such code reads as `XX000`.
    pub fn as_str(&self) -> &str {
        if self
            .0
            .iter()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
        {
            std::str::from_utf8(&self.0).unwrap_or("XX000")
        } else {
            "XX000"
        }
    }

    /// The code that a peer sent; `None` when it is not five characters of `0-9A-Z`.
    pub fn parse(code: &[u8]) -> Option<SqlState> {
        let code: [u8; 5] = code.try_into().ok()?;
        code.iter()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_uppercase())
            .then_some(SqlState(code))
    }

    /// The first two characters: the class of the condition.
    pub fn class(&self) -> &str {
        &self.as_str()[..2]
    }
}

impl fmt::Display for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for SqlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SqlState({})", self.as_str())
    }
}

/// Declares the constants in the order of PostgreSQL's table, so that each shows as one line.
macro_rules! sqlstates {
    ($($name:ident = $code:literal, $doc:literal;)*) => {
        impl SqlState {
            $(#[doc = concat!("`", $code, "`: ", $doc)] pub const $name: SqlState = SqlState(five($code));)*
        }
    };
}

/// Refuses a code of another length when the crate is compiled.
const fn five(code: &str) -> [u8; 5] {
    let code = code.as_bytes();
    assert!(code.len() == 5);
    [code[0], code[1], code[2], code[3], code[4]]
}

sqlstates! {
    SUCCESSFUL_COMPLETION = "00000", "no error; what a NOTICE carries.";
    WARNING = "01000", "a warning of no special kind.";
    CONNECTION_EXCEPTION = "08000", "the connection failed in a way with no code of its own.";
    UNABLE_TO_CONNECT = "08001", "a shard could not be reached.";
    CONNECTION_DOES_NOT_EXIST = "08003", "the connection is not there.";
    CONNECTION_REJECTED = "08004", "a shard refused the connection.";
    CONNECTION_FAILURE = "08006", "a shard was lost.";
    TRANSACTION_RESOLUTION_UNKNOWN = "08007", "the outcome of a commit is unknown.";
    PROTOCOL_VIOLATION = "08P01", "a malformed frame, or a message out of order.";
    FEATURE_NOT_SUPPORTED = "0A000", "refused; also a shard's `cached plan must not change result type`.";
    DATA_EXCEPTION = "22000", "a value that makes no sense, of no special kind.";
    NUMERIC_VALUE_OUT_OF_RANGE = "22003", "a number too large for its type.";
    NULL_VALUE_NOT_ALLOWED = "22004", "NULL where a value is needed.";
    DATETIME_FIELD_OVERFLOW = "22008", "a date or time out of range.";
    CHARACTER_NOT_IN_REPERTOIRE = "22021", "text that is not valid in its encoding.";
    INVALID_PARAMETER_VALUE = "22023", "a parameter with a value that it cannot have.";
    INVALID_TEXT_REPRESENTATION = "22P02", "text that its type's input function rejects.";
    INVALID_BINARY_REPRESENTATION = "22P03", "bytes that its type's receive function rejects.";
    BAD_COPY_FILE_FORMAT = "22P04", "malformed COPY data.";
    UNTRANSLATABLE_CHARACTER = "22P05", "a character that the client's encoding lacks.";
    NOT_NULL_VIOLATION = "23502", "NULL in a NOT NULL column, such as a key.";
    UNIQUE_VIOLATION = "23505", "a duplicate key.";
    INVALID_CURSOR_STATE = "24000", "a cursor in a state that does not fit.";
    INVALID_TRANSACTION_STATE = "25000", "not in the transaction state that the statement needs.";
    ACTIVE_SQL_TRANSACTION = "25001", "cannot run inside a transaction block.";
    READ_ONLY_SQL_TRANSACTION = "25006", "cannot run in a read-only transaction.";
    NO_ACTIVE_SQL_TRANSACTION = "25P01", "needs a transaction block.";
    IN_FAILED_SQL_TRANSACTION = "25P02", "the block has failed already.";
    INVALID_SQL_STATEMENT_NAME = "26000", "no such prepared statement.";
    INVALID_AUTHORIZATION_SPECIFICATION = "28000", "not allowed to log in.";
    INVALID_PASSWORD = "28P01", "bad password or user.";
    INVALID_TRANSACTION_TERMINATION = "2D000", "the transaction cannot be ended here.";
    INVALID_CURSOR_NAME = "34000", "no such portal or cursor.";
    INVALID_SAVEPOINT = "3B001", "no such savepoint.";
    INVALID_CATALOG_NAME = "3D000", "no such database.";
    INVALID_SCHEMA_NAME = "3F000", "no such schema.";
    SERIALIZATION_FAILURE = "40001", "try again: a serialization failure, or a slot fenced too long.";
    DEADLOCK_DETECTED = "40P01", "cancelled to break a deadlock.";
    SYNTAX_ERROR = "42601", "a syntax error.";
    INSUFFICIENT_PRIVILEGE = "42501", "not permitted.";
    UNDEFINED_COLUMN = "42703", "no such column.";
    AMBIGUOUS_COLUMN = "42702", "a column name that fits several.";
    UNDEFINED_OBJECT = "42704", "no such object, such as a setting.";
    DUPLICATE_OBJECT = "42710", "the object exists already.";
    UNDEFINED_FUNCTION = "42883", "no such function.";
    UNDEFINED_TABLE = "42P01", "no such table.";
    UNDEFINED_PARAMETER = "42P02", "no such parameter.";
    DUPLICATE_CURSOR = "42P03", "a portal of that name is open.";
    DUPLICATE_PREPARED_STATEMENT = "42P05", "a statement of that name is prepared.";
    DUPLICATE_TABLE = "42P07", "the table exists already.";
    DATATYPE_MISMATCH = "42804", "an expression of another type than needed.";
    INDETERMINATE_DATATYPE = "42P18", "a parameter whose type cannot be known.";
    INSUFFICIENT_RESOURCES = "53000", "a resource ran out, of no special kind.";
    DISK_FULL = "53100", "the disk is full.";
    OUT_OF_MEMORY = "53200", "the router's memory limit was reached.";
    TOO_MANY_CONNECTIONS = "53300", "no lease in time, or too many clients.";
    CONFIGURATION_LIMIT_EXCEEDED = "53400", "a merge, or another thing with a named limit, went over it.";
    PROGRAM_LIMIT_EXCEEDED = "54000", "larger than the program can take.";
    STATEMENT_TOO_COMPLEX = "54001", "a statement too deep or too long.";
    TOO_MANY_ARGUMENTS = "54023", "too many parameters.";
    OBJECT_NOT_IN_PREREQUISITE_STATE = "55000", "the object is not in the state that is needed.";
    OBJECT_IN_USE = "55006", "the object is in use.";
    CANT_CHANGE_RUNTIME_PARAM = "55P02", "the setting cannot be changed now.";
    LOCK_NOT_AVAILABLE = "55P03", "the lock was not to be had in time.";
    QUERY_CANCELED = "57014", "cancelled by the user or by a timeout.";
    ADMIN_SHUTDOWN = "57P01", "shutting down.";
    CRASH_SHUTDOWN = "57P02", "another process crashed.";
    CANNOT_CONNECT_NOW = "57P03", "starting or paused.";
    IDLE_SESSION_TIMEOUT = "57P05", "idle for too long.";
    IDLE_IN_TRANSACTION_SESSION_TIMEOUT = "25P03", "idle in a transaction for too long.";
    SYSTEM_ERROR = "58000", "an error outside PostgreSQL.";
    IO_ERROR = "58030", "an input or output error.";
    CONFIG_FILE_ERROR = "F0000", "a configuration file is wrong.";
    INTERNAL_ERROR = "XX000", "our bug.";
    DATA_CORRUPTED = "XX001", "data that cannot be right.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_reads_as_its_five_characters() {
        assert_eq!(SqlState::FEATURE_NOT_SUPPORTED.as_str(), "0A000");
        assert_eq!(SqlState::parse(b"40P01"), Some(SqlState::DEADLOCK_DETECTED));
        assert_eq!(SqlState::QUERY_CANCELED.class(), "57");
    }

    #[test]
    fn what_is_no_code_is_not_taken_for_one() {
        assert_eq!(SqlState::parse(b"0a000"), None);
        assert_eq!(SqlState::parse(b"0A00"), None);
        assert_eq!(SqlState(*b"\xff\xff\xff\xff\xff").as_str(), "XX000");
    }
}
