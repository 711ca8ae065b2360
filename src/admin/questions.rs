//! [`Show`]: what `SHOW` can show. One table has each question's words, its answer's columns, and what the help says of it.
//! Where PgBouncer (1.23) has the question, its columns come first and in its order; ours follow.

use super::answer::Column;

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Show {
    /// The commands.
    Help,
    /// Of the program.
    Version,
    /// Whether anything is paused.
    State,
    /// Who is connected.
    Clients,
    /// Connections to the shards.
    Servers,
    /// Each pool.
    PoolsByShard,
    /// The pools of a user, as one.
    Pools,
    /// Counts since the start.
    StatsTotals,
    /// Of the last period.
    StatsAverages,
    /// Both.
    Stats,
    /// Both, of all databases.
    Totals,
    /// The database, by shard.
    Databases,
    /// Who may log in.
    Users,
    /// How much there is of what.
    Lists,
    /// What memory is used for.
    Mem,
    /// The files.
    Config,
    /// What the ring proposes.
    Ring,
    /// Where tables are.
    Tables,
    /// Cached templates.
    Statements,
    /// Prepared parts.
    TransactionsInDoubt,
    /// Who is registered.
    Routers,
    /// The shards as they are.
    Shards,
    /// Who owns which slots.
    Slots,
    /// Moves under way.
    Rebalance,
    /// All moves.
    Moves,
}

/// A question.
#[derive(Debug)]
pub struct Question {
    /// What is asked.
    pub show: Show,
    /// Its words after SHOW.
    pub words: &'static [&'static str],
    /// What the answer consists of.
    pub columns: &'static [Column],
    /// What the help says.
    pub help: &'static str,
}

/// All questions. One whose words begin as another's do stands before it.
pub const SHOWS: &[Question] = &[
    Question {
        show: Show::Help,
        words: &["help"],
        columns: &[Column::text("command"), Column::text("description")],
        help: "these commands",
    },
    Question {
        show: Show::Version,
        words: &["version"],
        columns: &[Column::text("version")],
        help: "the version of pgring",
    },
    Question {
        show: Show::State,
        words: &["state"],
        columns: &[Column::text("key"), Column::text("value")],
        help: "whether the router is active, or all or some of it paused",
    },
    Question {
        show: Show::Clients,
        words: &["clients"],
        columns: &[
            Column::text("type"),
            Column::text("user"),
            Column::text("database"),
            Column::text("replication"),
            Column::text("state"),
            Column::text("addr"),
            Column::integer("port"),
            Column::text("local_addr"),
            Column::integer("local_port"),
            Column::text("connect_time"),
            Column::text("request_time"),
            Column::integer("wait"),
            Column::integer("wait_us"),
            Column::integer("close_needed"),
            Column::text("ptr"),
            Column::text("link"),
            Column::integer("remote_pid"),
            Column::text("tls"),
            Column::text("application_name"),
            Column::integer("prepared_statements"),
            Column::bigint("id"),
        ],
        help: "who is connected, and what each client does",
    },
    Question {
        show: Show::Servers,
        words: &["servers"],
        columns: &[
            Column::text("type"),
            Column::text("user"),
            Column::text("database"),
            Column::text("replication"),
            Column::text("state"),
            Column::text("addr"),
            Column::integer("port"),
            Column::text("local_addr"),
            Column::integer("local_port"),
            Column::text("connect_time"),
            Column::text("request_time"),
            Column::integer("wait"),
            Column::integer("wait_us"),
            Column::integer("close_needed"),
            Column::text("ptr"),
            Column::text("link"),
            Column::integer("remote_pid"),
            Column::text("tls"),
            Column::text("application_name"),
            Column::integer("prepared_statements"),
            Column::bigint("id"),
            Column::text("shard"),
        ],
        help: "connections to the shards",
    },
    Question {
        show: Show::PoolsByShard,
        words: &["pools", "by", "shard"],
        columns: &[
            Column::text("shard"),
            Column::text("user"),
            Column::integer("cl_waiting"),
            Column::integer("sv_active"),
            Column::integer("sv_idle"),
            Column::integer("sv_kept"),
            Column::integer("sv_login"),
            Column::integer("size"),
            Column::integer("maxwait"),
            Column::integer("maxwait_us"),
            Column::bigint("connects"),
            Column::bigint("connect_errors"),
            Column::bigint("timeouts"),
            Column::bigint("leases"),
            Column::integer("paused"),
        ],
        help: "each pool: one for each shard and user",
    },
    Question {
        show: Show::Pools,
        words: &["pools"],
        columns: &[
            Column::text("database"),
            Column::text("user"),
            Column::integer("cl_active"),
            Column::integer("cl_waiting"),
            Column::integer("cl_active_cancel_req"),
            Column::integer("cl_waiting_cancel_req"),
            Column::integer("sv_active"),
            Column::integer("sv_active_cancel"),
            Column::integer("sv_being_canceled"),
            Column::integer("sv_idle"),
            Column::integer("sv_used"),
            Column::integer("sv_tested"),
            Column::integer("sv_login"),
            Column::integer("maxwait"),
            Column::integer("maxwait_us"),
            Column::text("pool_mode"),
        ],
        help: "clients and connections of each user, over all shards",
    },
    Question {
        show: Show::StatsTotals,
        words: &["stats_totals"],
        columns: &[
            Column::text("database"),
            Column::bigint("server_assignment_count"),
            Column::bigint("xact_count"),
            Column::bigint("query_count"),
            Column::bigint("bytes_received"),
            Column::bigint("bytes_sent"),
            Column::bigint("xact_time"),
            Column::bigint("query_time"),
            Column::bigint("wait_time"),
        ],
        help: "counts since the start",
    },
    Question {
        show: Show::StatsAverages,
        words: &["stats_averages"],
        columns: &[
            Column::text("database"),
            Column::bigint("server_assignment_count"),
            Column::bigint("xact_count"),
            Column::bigint("query_count"),
            Column::bigint("bytes_received"),
            Column::bigint("bytes_sent"),
            Column::bigint("xact_time"),
            Column::bigint("query_time"),
            Column::bigint("wait_time"),
        ],
        help: "averages of the last minute",
    },
    Question {
        show: Show::Stats,
        words: &["stats"],
        columns: &[
            Column::text("database"),
            Column::bigint("total_server_assignment_count"),
            Column::bigint("total_xact_count"),
            Column::bigint("total_query_count"),
            Column::bigint("total_received"),
            Column::bigint("total_sent"),
            Column::bigint("total_xact_time"),
            Column::bigint("total_query_time"),
            Column::bigint("total_wait_time"),
            Column::bigint("avg_server_assignment_count"),
            Column::bigint("avg_xact_count"),
            Column::bigint("avg_query_count"),
            Column::bigint("avg_recv"),
            Column::bigint("avg_sent"),
            Column::bigint("avg_xact_time"),
            Column::bigint("avg_query_time"),
            Column::bigint("avg_wait_time"),
        ],
        help: "counts since the start, and averages of the last minute",
    },
    Question {
        show: Show::Totals,
        words: &["totals"],
        columns: &[Column::text("name"), Column::bigint("value")],
        help: "the same as rows",
    },
    Question {
        show: Show::Databases,
        words: &["databases"],
        columns: &[
            Column::text("name"),
            Column::text("host"),
            Column::integer("port"),
            Column::text("database"),
            Column::text("force_user"),
            Column::integer("pool_size"),
            Column::integer("min_pool_size"),
            Column::integer("reserve_pool"),
            Column::integer("server_lifetime"),
            Column::text("pool_mode"),
            Column::integer("max_connections"),
            Column::integer("current_connections"),
            Column::integer("paused"),
            Column::integer("disabled"),
            Column::text("shard"),
        ],
        help: "where the database is, a row for each shard",
    },
    Question {
        show: Show::Users,
        words: &["users"],
        columns: &[
            Column::text("name"),
            Column::integer("pool_size"),
            Column::text("pool_mode"),
            Column::integer("max_user_connections"),
            Column::integer("current_connections"),
        ],
        help: "who may log in",
    },
    Question {
        show: Show::Lists,
        words: &["lists"],
        columns: &[Column::text("list"), Column::integer("items")],
        help: "how much there is of what",
    },
    Question {
        show: Show::Mem,
        words: &["mem"],
        columns: &[
            Column::text("name"),
            Column::bigint("size"),
            Column::bigint("used"),
            Column::bigint("free"),
            Column::bigint("memtotal"),
        ],
        help: "what memory is used for",
    },
    Question {
        show: Show::Config,
        words: &["config"],
        columns: &[
            Column::text("key"),
            Column::text("value"),
            Column::text("default"),
            Column::text("changeable"),
        ],
        help: "the settings in force, their defaults, and whether RELOAD can change them",
    },
    Question {
        show: Show::Ring,
        words: &["ring"],
        columns: &[
            Column::text("shard"),
            Column::integer("weight"),
            Column::integer("virtual_nodes"),
            Column::integer("owned"),
            Column::integer("proposed"),
            Column::integer("to_gain"),
            Column::integer("to_lose"),
            Column::integer("pinned"),
        ],
        help: "what the ring proposes for each shard, against what it owns",
    },
    Question {
        show: Show::Tables,
        words: &["tables"],
        columns: &[
            Column::text("schema"),
            Column::text("table"),
            Column::text("kind"),
            Column::text("key"),
            Column::text("key_type"),
            Column::text("shard"),
            Column::text("problem"),
        ],
        help: "tables and where their rows are",
    },
    Question {
        show: Show::Statements,
        words: &["statements"],
        columns: &[
            Column::text("statement"),
            Column::text("tier"),
            Column::text("key_parameters"),
            Column::text("refusal"),
        ],
        help: "statements whose plans are cached, without their literals",
    },
    Question {
        show: Show::TransactionsInDoubt,
        words: &["transactions", "in", "doubt"],
        columns: &[
            Column::text("shard"),
            Column::text("gid"),
            Column::text("owner"),
            Column::bigint("age"),
            Column::text("decider"),
            Column::text("verdict"),
        ],
        help: "prepared parts of transactions of several shards, and what their deciders say",
    },
    Question {
        show: Show::Routers,
        words: &["routers"],
        columns: &[
            Column::text("shard"),
            Column::bigint("router"),
            Column::text("this"),
            Column::integer("pid"),
            Column::text("client_addr"),
            Column::text("connected"),
            Column::bigint("acknowledged"),
            Column::bigint("epoch"),
        ],
        help: "routers that are registered on the shards, and which ownership they have acknowledged",
    },
    Question {
        show: Show::Shards,
        words: &["shards"],
        columns: &[
            Column::text("shard"),
            Column::text("database"),
            Column::text("nodes"),
            Column::integer("weight"),
            Column::text("state"),
            Column::text("server_version"),
            Column::bigint("epoch"),
            Column::integer("slots"),
            Column::integer("paused"),
            Column::text("last_error"),
        ],
        help: "the shards: where they are, whether they answer, and what they own",
    },
    Question {
        show: Show::Slots,
        words: &["slots"],
        columns: &[
            Column::integer("first"),
            Column::integer("last"),
            Column::integer("slots"),
            Column::text("shard"),
            Column::text("state"),
        ],
        help: "ranges of slots and their owners: owned, fenced, unowned, or claimed by two",
    },
    Question {
        show: Show::Rebalance,
        words: &["rebalance"],
        columns: &[
            Column::integer("move"),
            Column::text("source"),
            Column::text("target"),
            Column::integer("slots"),
            Column::text("phase"),
            Column::text("wanted"),
            Column::bigint("rows"),
            Column::bigint("rows_expected"),
            Column::bigint("bytes"),
            Column::bigint("bytes_expected"),
            Column::bigint("rate"),
            Column::bigint("rate_limit"),
            Column::bigint("lag_ms"),
            Column::bigint("copy_left_s"),
            Column::bigint("rows_deleted"),
            Column::integer("fences"),
            Column::bigint("pause_ms"),
            Column::bigint("pause_budget_ms"),
            Column::text("last_error"),
        ],
        help: "moves under way: how far they are, how fast, for how long statements were held, and what failed last",
    },
    Question {
        show: Show::Moves,
        words: &["moves"],
        columns: &[
            Column::integer("move"),
            Column::text("source"),
            Column::text("target"),
            Column::integer("slots"),
            Column::text("phase"),
            Column::bigint("rows"),
            Column::bigint("bytes"),
            Column::bigint("rate"),
            Column::bigint("rows_deleted"),
            Column::integer("fences"),
            Column::bigint("pause_ms"),
            Column::text("planned"),
            Column::text("flipped"),
            Column::text("changed"),
            Column::text("last_error"),
        ],
        help: "every move that there was, as the shards remember them",
    },
];

impl Show {
    /// Its place in the table.
    pub fn question(self) -> &'static Question {
        let question = SHOWS.iter().find(|question| question.show == self);
        question.expect("each question stands in the table")
    }

    /// Its words after SHOW, as they are written.
    pub fn words(self) -> String {
        self.question().words.join(" ").to_ascii_uppercase()
    }
}
