//! SQL as text and tokens: lexer, splitting, classification, COPY rows, and the parser. Pure: knows nothing of
//! shards or tables. Start at [`lex`].

pub mod lex;
pub mod shape;
pub mod reader;
pub mod split;
pub mod statement;
pub mod definition;
pub mod copy;
pub mod copy_line;
pub mod copy_rows;
pub mod search_path;
pub mod parse;
pub mod plpgsql;
pub mod position;
