//! Statements that the session itself answers: transaction control, settings, and what goes to all shards.

use super::error::{self, SessionError, Stop};
use super::explain::PlanFormat;
use super::parameters::{CONSISTENT, PER_SHARD, ROUTER_PREFIX, SNAPSHOT};
use super::session::Session;
use super::simple_query::{Sentence, text_of};
use super::statements::{Bound, Prepared};
use crate::planner::plan::{Access, Plan, SettingChange, StepArguments};
use crate::planner::{self, Binding, PlanError, Refusal, Template};
use crate::sql::lex;
use crate::sql::statement::{
    self, Discard, IsolationLevel, SetArgument, SetScope, SetValue, Statement, TransactionModes,
};
use crate::topology::ShardId;
use crate::topology::snapshot::Topology;
use crate::transaction::command;
use crate::transaction::deadlock::Mark;
use crate::transaction::settings::{self, quoted};
use crate::transaction::state::Phase;
use crate::wire::backend_message::{self, ColumnDescription};
use crate::wire::error_response::{Report, Severity};
use crate::wire::sqlstate::SqlState;
use std::borrow::Cow;
use std::sync::Arc;

/// The router's own settings, and what each may be.
const ROUTER_SETTINGS: [(&str, &str); 3] = [
    ("pgring.shard", "the name of a shard, or empty"),
    ("pgring.key", "a value of the sharding key, or empty"),
    (SNAPSHOT, "shard, or consistent"),
];

/// The settings that are modes of the transaction, and what shows them.
const MODE_NAMES: [&str; 3] = [
    "transaction_isolation",
    "transaction_read_only",
    "transaction_deferrable",
];
const MODES: [&str; 3] = [
    "SHOW transaction_isolation",
    "SHOW transaction_read_only",
    "SHOW transaction_deferrable",
];

impl Session {
    /// Runs a statement that the session answers. `describe`: whether rows are described (the simple protocol).
    pub(super) async fn run_in_session(
        &mut self,
        sentence: &Sentence<'_>,
        describe: bool,
    ) -> Result<(), Stop> {
        let sql = sentence.sql;
        match &sentence.statement {
            Statement::Begin { modes, .. }
                if self.transaction.block.phase() == Phase::Implicit
                    && *modes != TransactionModes::default()
                    && self.transaction.is_used() =>
            {
                Err(refused(
                    "BEGIN with modes after other statements of its string",
                    "begin-modes",
                    "the transaction that it would take over has begun without them",
                    "Send BEGIN first, or in a string of its own.",
                ))
            }
            Statement::Begin { start, modes } => self.begin(*start, modes).await,
            Statement::Commit { chain } => self.end_block(true, *chain).await,
            Statement::Rollback { chain } => self.end_block(false, *chain).await,
            Statement::Savepoint(name) => self.savepoint(name, sql).await,
            Statement::Release(name) => self.release_savepoint(name, sql).await,
            Statement::RollbackTo(name) => self.roll_back_to(name, sql).await,
            Statement::Set { scope, name, value } => self.set(sql, *scope, name, value).await,
            Statement::SetTransaction(modes) => self.set_transaction(sql, modes).await,
            Statement::SetConstraints => self.set_constraints(sql).await,
            Statement::SetSessionCharacteristics(modes) => {
                self.set_characteristics(sql, modes).await
            }
            Statement::SetTransactionSnapshot(_) => Err(refused(
                "SET TRANSACTION SNAPSHOT",
                "transaction-snapshot",
                "a snapshot belongs to one shard",
                "Connect to the shard itself.",
            )),
            Statement::Reset(target) => self.reset(target.as_deref()).await,
            Statement::Discard(target) => self.discard(target).await,
            Statement::Deallocate(target) => self.deallocate(target.as_deref()),
            Statement::Prepare { .. } => self.prepare(sentence, 0).await,
            // One that was there when it was bound has been bound to a shard.
            Statement::Execute { name, .. } => {
                Err(SessionError::UnknownStatement(name.to_string()).into())
            }
            Statement::PrepareTransaction(_) => {
                // As in PostgreSQL: one that fails is a ROLLBACK, and so is one in a failed block.
                let phase = self.transaction.block.phase();
                if phase != Phase::Idle {
                    self.roll_back().await;
                }
                if phase == Phase::Failed {
                    self.complete("ROLLBACK");
                    return Ok(());
                }
                Err(two_phase_refused())
            }
            Statement::CommitPrepared(_) | Statement::RollbackPrepared(_) => {
                Err(two_phase_refused())
            }
            Statement::Show(Some(name)) => self.show_router(name, describe),
            Statement::Listen(_) | Statement::Unlisten(_) | Statement::Notify { .. } => {
                self.notification(sentence).await
            }
            Statement::Close(None) => {
                for shard in self.cursors.values().copied().collect::<Vec<_>>() {
                    self.join(shard).await?;
                    self.transaction.unsettle(shard);
                    let backend = self.join(shard).await?;
                    command::run(backend, "CLOSE ALL")
                        .await
                        .map_err(error::of_command)?;
                }
                self.held_cursors.clear();
                self.end_cursors();
                self.complete("CLOSE CURSOR ALL");
                Ok(())
            }
            Statement::Copy(copy) => self.copy(copy, sql).await,
            Statement::Explain {
                body,
                analyze,
                options,
            } => {
                let explain = Explain {
                    sql,
                    body: body.text,
                    analyze: *analyze,
                    format: PlanFormat::of(options),
                };
                self.explain(&explain, &Bound::default(), describe).await
            }
            Statement::Load => Err(refused(
                "LOAD",
                "session-state",
                "a library is loaded into one backend only",
                "Use shared_preload_libraries on the shards.",
            )),
            _ => self.run_on_shards(sentence).await,
        }
    }

    pub(super) fn complete(&mut self, tag: &str) {
        backend_message::write_command_complete(self.client.out(), tag);
    }

    fn warn(&mut self, sqlstate: SqlState, message: &str) {
        let report = Report {
            severity: Severity::Warning,
            sqlstate,
            message,
            detail: None,
            hint: None,
            position: None,
        };
        report.write(self.client.out());
    }

    async fn begin(&mut self, start: bool, modes: &TransactionModes) -> Result<(), Stop> {
        match self.transaction.block.phase() {
            Phase::Idle => {
                // What a pipeline has only described so far was on shards that know of no block.
                self.release_idle().await;
                self.parameters.begin();
                self.transaction.block.begin(modes);
            }
            Phase::Implicit => {
                if *modes != TransactionModes::default() {
                    // The block that it takes over has begun without them, on shards that only set something so far.
                    let sql = format!("SET TRANSACTION {modes}");
                    self.run_on_participants(&[&sql]).await?;
                }
                self.transaction.block.begin(modes);
                self.check_snapshot().await?;
            }
            Phase::Open | Phase::Failed => {
                self.warn(
                    SqlState::ACTIVE_SQL_TRANSACTION,
                    "there is already a transaction in progress",
                );
            }
        }
        self.complete(if start { "START TRANSACTION" } else { "BEGIN" });
        Ok(())
    }

    async fn end_block(&mut self, commit: bool, chain: bool) -> Result<(), Stop> {
        let phase = self.transaction.block.phase();
        if matches!(phase, Phase::Idle | Phase::Implicit) {
            if chain {
                let what = if commit {
                    "COMMIT AND CHAIN"
                } else {
                    "ROLLBACK AND CHAIN"
                };
                return Err(SessionError::NoBlock(what).into());
            }
            self.warn(
                SqlState::NO_ACTIVE_SQL_TRANSACTION,
                "there is no transaction in progress",
            );
        }
        let next = match chain {
            true => Some(self.chained_modes(commit).await?),
            false => None,
        };
        let mut tag = "ROLLBACK";
        if commit && phase != Phase::Failed {
            if self.commit().await? {
                tag = "COMMIT";
            }
        } else {
            self.roll_back().await;
        }
        if let Some(modes) = next {
            self.parameters.begin();
            self.transaction.block.chain(modes);
        }
        self.complete(tag);
        Ok(())
    }

    /// The modes that AND CHAIN hands on. What was never said is the default of the moment when the block began: where
    /// the commit makes another one the default, a shard is asked.
    async fn chained_modes(&mut self, commit: bool) -> Result<TransactionModes, Stop> {
        let modes = self.transaction.block.chained_modes(commit);
        let unsaid = [
            (modes.isolation.is_none(), "default_transaction_isolation"),
            (modes.read_only.is_none(), "default_transaction_read_only"),
            (modes.deferrable.is_none(), "default_transaction_deferrable"),
        ];
        let before = self.parameters.before_block();
        let after = self.parameters.shard_settings();
        let changes = |name: &str| before.get(name) != after.get(name);
        let commits = commit && self.transaction.block.phase() != Phase::Failed;
        if !commits || !unsaid.iter().any(|(unsaid, name)| *unsaid && changes(name)) {
            return Ok(modes);
        }
        let shard = self.any_shard();
        let backend = self.join(shard).await?;
        let reply = command::run_apart(backend, &MODES).await;
        if matches!(reply, Err(command::CommandError::Lost { .. })) {
            self.lose(shard);
        }
        let mut shown = reply.map_err(error::of_command)?.rows.into_iter().flatten();
        let mut modes = modes;
        for name in MODE_NAMES {
            let value = shown.next().flatten().unwrap_or_default();
            let mode = mode(name, &value);
            modes.isolation = modes.isolation.or(mode.isolation);
            modes.read_only = modes.read_only.or(mode.read_only);
            modes.deferrable = modes.deferrable.or(mode.deferrable);
        }
        Ok(modes)
    }

    /// Commits the block on all its shards. Whether it committed, rather than found itself failed.
    pub(super) async fn commit(&mut self) -> Result<bool, Stop> {
        self.in_use.clear().await;
        let topology = self.router.topology();
        let (transaction, tenant) = self.transaction();
        let ended = transaction.commit(tenant, &topology).await;
        let committed = ended.as_ref().is_ok_and(|ended| ended.committed);
        self.end_of_block(committed).await;
        match ended {
            Ok(ended) => {
                self.pass_asides(&ended.asides);
                Ok(ended.committed)
            }
            Err(error) => Err(error::of_commit(error)),
        }
    }

    /// Rolls the block back on all its shards.
    pub(super) async fn roll_back(&mut self) {
        self.in_use.clear().await;
        let asides = self.transaction.rollback().await;
        self.pass_asides(&asides);
        self.end_of_block(false).await;
    }

    async fn end_of_block(&mut self, committed: bool) {
        self.parameters.end(committed);
        self.portals.clear();
        self.end_cursors();
        self.forget_changes();
        if std::mem::take(&mut self.schema_changed) && committed {
            Box::pin(self.spread_schema_change()).await;
        }
        self.settle_pins().await;
    }

    /// Remembers that a statement changed the schema; the routers learn of it when it is committed.
    pub(super) fn note_schema_change(&mut self, access: Access) {
        match access {
            Access::Ddl | Access::OutsideBlock => self.schema_changed = true,
            Access::Read | Access::Write => {}
        }
    }

    /// Refuses a statement that must be a transaction by itself where it is not.
    pub(super) fn check_alone(&self, command: &'static str) -> Result<(), Stop> {
        let error = match self.transaction.block.phase() {
            Phase::Idle | Phase::Implicit if self.pipeline.earlier => {
                SessionError::InPipeline(command)
            }
            Phase::Idle => return Ok(()),
            Phase::Implicit | Phase::Open | Phase::Failed => SessionError::InBlock(command),
        };
        Err(error.into())
    }

    fn need_block(&self, what: &'static str) -> Result<(), Stop> {
        match self.transaction.block.phase() {
            Phase::Open | Phase::Failed => Ok(()),
            Phase::Idle | Phase::Implicit => Err(SessionError::NoBlock(what).into()),
        }
    }

    /// Runs statements on every shard of the block; the first error counts. The rows of the first shard.
    async fn run_on_participants(
        &mut self,
        statements: &[&str],
    ) -> Result<Vec<Option<String>>, Stop> {
        let mut failure = None;
        let mut rows = None;
        for (shard, answer) in self.transaction.run_on_all(statements).await {
            match answer {
                Ok(reply) => {
                    self.pass_asides(&reply.asides);
                    rows = rows.or(Some(reply.rows));
                }
                Err(error) => {
                    if matches!(error, command::CommandError::Lost { .. }) {
                        self.lose(shard);
                    }
                    failure = failure.or(Some(error));
                }
            }
            self.report_parameters(shard);
        }
        match failure {
            Some(error) => Err(error::of_command(error)),
            None => Ok(rows.into_iter().flatten().flatten().collect()),
        }
    }

    /// Refuses what would have a later shard told more than a block may keep.
    fn check_block_bytes(&self, sql: &str) -> Result<(), Stop> {
        let max = self.router.config.limits.block_bytes;
        if self.transaction.block.bytes() + sql.len() > max {
            return Err(SessionError::BlockTooLong { max }.into());
        }
        Ok(())
    }

    async fn savepoint(&mut self, name: &str, sql: &str) -> Result<(), Stop> {
        self.need_block("SAVEPOINT")?;
        self.check_block_bytes(sql)?;
        self.run_on_participants(&[sql]).await?;
        self.transaction.block.savepoint(name, sql);
        self.parameters.savepoint(name);
        self.complete("SAVEPOINT");
        Ok(())
    }

    async fn release_savepoint(&mut self, name: &str, sql: &str) -> Result<(), Stop> {
        self.need_block("RELEASE SAVEPOINT")?;
        if !self.transaction.block.has_savepoint(name) {
            return Err(SessionError::NoSavepoint(name.to_owned()).into());
        }
        self.run_on_participants(&[sql]).await?;
        self.transaction.block.release(name);
        self.parameters.release(name);
        self.complete("RELEASE");
        Ok(())
    }

    async fn roll_back_to(&mut self, name: &str, sql: &str) -> Result<(), Stop> {
        self.need_block("ROLLBACK TO SAVEPOINT")?;
        if self.transaction.block.is_torn() {
            return Err(SessionError::TornBlock.into());
        }
        if !self.transaction.block.has_savepoint(name) {
            return Err(SessionError::NoSavepoint(name.to_owned()).into());
        }
        match self.transaction.mark().map(Mark::statement) {
            // What was marked after the savepoint is not any more.
            Some(mark) => self.run_on_participants(&[sql, &mark]).await?,
            None => self.run_on_participants(&[sql]).await?,
        };
        self.transaction.block.rollback_to(name);
        self.parameters.rollback_to(name);
        self.own_schema.look_anew();
        self.revert_temporary();
        self.complete("ROLLBACK");
        Ok(())
    }

    async fn set(
        &mut self,
        sql: &str,
        scope: SetScope,
        name: &str,
        value: &SetValue<'_>,
    ) -> Result<(), Stop> {
        if name.starts_with(ROUTER_PREFIX) {
            return self.set_router(scope, name, value);
        }
        match name {
            "client_encoding" => check_encoding(value)?,
            "standard_conforming_strings"
                if !matches!(value, SetValue::Default)
                    && !is_on(&text_of_value(value).unwrap_or_default()) =>
            {
                return Err(refused(
                    "standard_conforming_strings = off",
                    "standard-conforming-strings",
                    "the router reads string literals as the SQL standard does",
                    "Write backslashes in E'' strings.",
                ));
            }
            "seed" => {
                return Err(refused(
                    "SET SEED",
                    "session-state",
                    "random() would draw from the seed on one connection only",
                    "Connect to the shard itself.",
                ));
            }
            "session_authorization" => {
                return Err(refused(
                    "SET SESSION AUTHORIZATION",
                    "session-authorization",
                    "connections to the shards belong to the user that logged in",
                    "Use SET ROLE, or log in as that user.",
                ));
            }
            _ => {}
        }
        if is_mode(name) {
            return self.set_mode(sql, name).await;
        }
        match (self.transaction.block.phase(), scope) {
            (Phase::Idle, SetScope::Local) => {
                self.note_custom(name);
                self.say_outside_block(sql).await
            }
            (Phase::Idle, SetScope::Session) if matches!(value, SetValue::Default) => {
                self.reset_setting(name).await?;
                self.complete("SET");
                Ok(())
            }
            (Phase::Idle, SetScope::Session) => self.set_outside_block(sql, name).await,
            (Phase::Implicit | Phase::Open | Phase::Failed, _) => {
                self.set_in_block(sql, scope, name, value).await
            }
        }
    }

    /// SET outside a block, on one shard: others hear of it when they are leased.
    async fn set_outside_block(&mut self, sql: &str, name: &str) -> Result<(), Stop> {
        self.note_custom(name);
        self.join_for_setting().await?;
        let show = format!("SHOW {}", quoted(name));
        // Together, so that a shard that does not show what it has set takes it back.
        let shown = self.run_on_participants(&[sql, &show]).await?;
        let value = shown.into_iter().next().flatten().unwrap_or_default();
        self.parameters.set(name, &value);
        let settings = self.parameters.shard_settings().clone();
        for backend in self.transaction.backends() {
            backend.applied = settings.clone();
        }
        self.complete("SET");
        Ok(())
    }

    /// SET and SET LOCAL in a block, with whatever value: on the block's shards now, and on those that join later.
    async fn set_in_block(
        &mut self,
        sql: &str,
        scope: SetScope,
        name: &str,
        value: &SetValue<'_>,
    ) -> Result<(), Stop> {
        let local = scope == SetScope::Local;
        let is_default = matches!(value, SetValue::Default);
        let sql = match self.parameters.startup().get(name) {
            // The default is what the client logged in with, which the shard does not know.
            Some(startup) if is_default => self.set_statement(name, startup, local).into(),
            Some(_) | None => Cow::Borrowed(sql),
        };
        self.check_block_bytes(&sql)?;
        self.note_custom(name);
        let nobody_took_part = self.transaction.shards().next().is_none();
        let foreseen = match nobody_took_part {
            true => self.foreseen(name, value),
            false => None,
        };
        let shown = match foreseen {
            Some(shown) => shown,
            None => {
                self.join_for_setting().await?;
                let show = format!("SHOW {}", quoted(name));
                let shown = self.run_on_participants(&[&sql, &show]).await?;
                let shown: Arc<str> = shown
                    .into_iter()
                    .next()
                    .flatten()
                    .unwrap_or_default()
                    .into();
                self.router.foreseeable.learn(name, value, &shown);
                shown
            }
        };
        match (local, is_default) {
            (true, true) => self.parameters.set_local_default(name, &shown),
            (true, false) => self.parameters.set_local(name, &shown),
            (false, true) => self.parameters.reset(name),
            (false, false) => self.parameters.set(name, &shown),
        }
        self.transaction.block.setting(name, local, &sql);
        self.complete("SET");
        Ok(())
    }

    /// What a shard would show after a SET that shards have taken before. The client is told of what is reported by a
    /// shard only.
    fn foreseen(&self, name: &str, value: &SetValue<'_>) -> Option<Arc<str>> {
        match self.reported.contains_key(name) {
            true => None,
            false => self.router.foreseeable.shown(name, value),
        }
    }

    /// SET LOCAL and its like outside a block: a shard warns, or says what is wrong, and nothing stays of it.
    async fn say_outside_block(&mut self, sql: &str) -> Result<(), Stop> {
        let shard = self.any_shard();
        self.run_on(shard, sql, 0).await
    }

    /// SET TRANSACTION.
    async fn set_transaction(&mut self, sql: &str, modes: &TransactionModes) -> Result<(), Stop> {
        if self.transaction.block.phase() == Phase::Idle {
            return self.say_outside_block(sql).await;
        }
        self.check_block_bytes(sql)?;
        // A block that has done nothing yet may take any mode; the shards that join hear of it.
        if self.transaction.shards().next().is_some() || self.transaction.block.in_savepoint() {
            self.join_for_setting().await?;
            self.run_on_participants(&[sql]).await?;
        }
        self.transaction.block.set_modes(modes);
        self.check_snapshot().await?;
        self.complete("SET");
        Ok(())
    }

    /// SET of a mode by its name: the block's, however it is set, and not the session's.
    async fn set_mode(&mut self, sql: &str, name: &str) -> Result<(), Stop> {
        if self.transaction.block.phase() == Phase::Idle {
            return self.say_outside_block(sql).await;
        }
        self.check_block_bytes(sql)?;
        self.join_for_setting().await?;
        let show = format!("SHOW {name}");
        let shown = self.run_on_participants(&[sql, &show]).await?;
        let shown = shown.into_iter().next().flatten().unwrap_or_default();
        self.transaction.block.set_modes(&mode(name, &shown));
        self.check_snapshot().await?;
        self.complete("SET");
        Ok(())
    }

    /// Before a statement: opens the snapshots that `pgring.snapshot` asks for. Outside a block, and for a read of several
    /// shards, in one of the router's own.
    pub(super) async fn open_snapshot(
        &mut self,
        access: Access,
        crosses: bool,
    ) -> Result<(), Stop> {
        if !self.parameters.is_consistent() || self.transaction.is_consistent() {
            return Ok(());
        }
        let shards: Vec<ShardId> = self.router.topology().shard_ids().collect();
        let reads_several = crosses && access == Access::Read;
        let settings = self.parameters.before_block();
        let is_repeatable = self.transaction.is_repeatable_read(settings);
        let own = self.transaction.block.phase() == Phase::Idle;
        match self.transaction.block.phase() {
            _ if shards.len() < 2 => return Ok(()),
            Phase::Idle if reads_several && !self.pipeline.executed => {
                self.leave_shard(None).await?;
                self.begin_implicit().await?;
                self.transaction.block.set_modes(&TransactionModes {
                    isolation: Some(IsolationLevel::RepeatableRead),
                    ..TransactionModes::default()
                });
            }
            Phase::Implicit | Phase::Open if is_repeatable => {
                self.leave_shard(None).await?;
            }
            Phase::Idle | Phase::Implicit | Phase::Open if reads_several => {
                return Err(refused(
                    "a read of several shards with pgring.snapshot = consistent in READ COMMITTED or SERIALIZABLE",
                    "snapshot-isolation",
                    "only a REPEATABLE READ block opens snapshots that agree, once and on all shards",
                    "Use BEGIN ISOLATION LEVEL REPEATABLE READ, or one statement outside a block.",
                ));
            }
            Phase::Idle | Phase::Implicit | Phase::Open | Phase::Failed => return Ok(()),
        }
        if self.transaction.has_unused() {
            // It leaves shards, which a cancel must not reach any more.
            self.in_use.clear().await;
            self.reports_are_stale = true;
        }
        if self.planned == 0 {
            self.planned = self.router.topology().generation;
        }
        let first = shards[0];
        let wait = self.router.config.snapshot.wait;
        let (transaction, tenant) = self.transaction();
        let opened = transaction
            .open_consistent(shards.clone(), tenant, wait)
            .await;
        self.note_in_use();
        let asides = opened.map_err(error::of_join)?;
        self.pass_asides(&asides);
        if std::mem::take(&mut self.reports_are_stale) {
            self.report_all_parameters(first);
        }
        let mut shards = shards.into_iter();
        let Err(stop) = shards.try_for_each(|shard| self.begin_on(shard)) else {
            return Ok(());
        };
        // What a shard owned may have been another when its snapshot was opened.
        match own {
            true => {
                self.roll_back().await;
                Err(stop)
            }
            false => Err(stop.settled()),
        }
    }

    async fn check_snapshot(&mut self) -> Result<(), Stop> {
        if self.transaction.has_unused() {
            // It may leave shards, which a cancel must not reach any more.
            self.in_use.clear().await;
        }
        let checked = self.transaction.check_snapshot().await;
        checked.map_err(error::of_join)
    }

    /// SET CONSTRAINTS.
    async fn set_constraints(&mut self, sql: &str) -> Result<(), Stop> {
        if self.transaction.block.phase() == Phase::Idle {
            return self.say_outside_block(sql).await;
        }
        self.check_block_bytes(sql)?;
        self.join_for_setting().await?;
        self.run_on_participants(&[sql]).await?;
        self.transaction.block.constraints(sql);
        self.complete("SET CONSTRAINTS");
        Ok(())
    }

    /// SET SESSION CHARACTERISTICS: up to three settings by one statement.
    async fn set_characteristics(
        &mut self,
        sql: &str,
        modes: &TransactionModes,
    ) -> Result<(), Stop> {
        let set = [
            (modes.isolation.is_some(), "default_transaction_isolation"),
            (modes.read_only.is_some(), "default_transaction_read_only"),
            (modes.deferrable.is_some(), "default_transaction_deferrable"),
        ];
        let changes: Vec<SettingChange> = set
            .into_iter()
            .filter(|(given, _)| *given)
            .map(|(_, name)| SettingChange {
                name: name.into(),
                local: false,
                perhaps: false,
            })
            .collect();
        let shard = self.shards_for_setting().remove(0);
        let backend = self.join(shard).await?;
        command::run_apart(backend, &[sql])
            .await
            .map_err(error::of_command)?;
        self.adopt_settings(shard, &changes).await?;
        self.complete("SET");
        Ok(())
    }

    /// What `set_config` set on a shard becomes the session's, or the block's: it is read back there, and set on the
    /// shards that take part now or later.
    pub(super) async fn adopt_settings(
        &mut self,
        shard: ShardId,
        changes: &[SettingChange],
    ) -> Result<(), Stop> {
        let idle = self.transaction.block.phase() == Phase::Idle;
        for change in changes {
            // The block's modes end with it, however they are set.
            let mode = is_mode(&change.name);
            self.note_custom(&change.name);
            if idle && (change.local || mode) {
                continue;
            }
            let backend = self.join(shard).await?;
            let show = match change.perhaps {
                true => settings::current_setting_statement(&change.name),
                false => format!("SHOW {}", quoted(&change.name)),
            };
            let shown = command::run_apart(backend, &[&show]).await;
            if shown.is_err() && idle {
                // What is set there now is not known, and nothing takes it back.
                self.lose(shard);
            }
            let shown = shown.map_err(error::of_command)?;
            let value = shown.rows.into_iter().flatten().next().flatten();
            if value.is_none() && change.perhaps {
                continue;
            }
            let value = value.unwrap_or_default();
            if idle {
                self.parameters.set(&change.name, &value);
                if let Some(backend) = self.transaction.backend(shard) {
                    backend.applied = self.parameters.shard_settings().clone();
                }
                for other in self.transaction.shards().collect::<Vec<_>>() {
                    self.apply_settings(other).await?;
                }
                continue;
            }
            let in_force = self.parameters.in_force().get(&change.name);
            let unmoved = in_force.is_some_and(|known| **known == *value);
            if !change.local && unmoved && self.parameters.is_local(&change.name) {
                return Err(refused(
                    "set_config to the value that SET LOCAL gave",
                    "session-state",
                    "whether it was called does not show, and so not whether the value stays after the block",
                    "Use SET.",
                ));
            }
            let sql = settings::set_config_statement(&change.name, &value, change.local || mode);
            self.check_block_bytes(&sql)?;
            self.run_on_participants(&[&sql]).await?;
            if mode {
                let mode = self::mode(&change.name, &value);
                self.transaction.block.set_modes(&mode);
                self.check_snapshot().await?;
                continue;
            }
            if change.local {
                self.parameters.set_local(&change.name, &value);
            } else {
                self.parameters.set(&change.name, &value);
            }
            let block = &mut self.transaction.block;
            block.setting(&change.name, change.local, &sql);
        }
        self.report_parameters(shard);
        Ok(())
    }

    /// Notes a customized setting that is about to be set on the shards that take part, before it may fail; and before a
    /// shard joins, since a connection that has it is fit then.
    pub(super) fn note_custom(&mut self, name: &str) {
        if self.parameters.note_custom(name) {
            for backend in self.transaction.backends() {
                backend.custom = self.parameters.custom().clone();
            }
        }
    }

    async fn apply_settings(&mut self, shard: ShardId) -> Result<(), Stop> {
        let settings = self.parameters.shard_settings().clone();
        let backend = self.transaction.backend(shard).ok_or(Stop::Gone)?;
        let applied = crate::transaction::settings::apply(backend, &settings).await;
        if applied.is_err() && self.transaction.block.phase() == Phase::Idle {
            // What is set there now is not known, and nothing takes it back.
            self.lose(shard);
        }
        applied.map_err(error::of_command)
    }

    /// All shards of the block, else one that will do.
    fn shards_for_setting(&self) -> Vec<ShardId> {
        let joined: Vec<ShardId> = self.transaction.shards().collect();
        if joined.is_empty() {
            vec![self.any_shard()]
        } else {
            joined
        }
    }

    /// Warns of a statement whose work will end with the pipeline.
    pub(super) fn warn_of_no_block(&mut self, statement: &Statement<'_>) {
        let command = match statement {
            Statement::Set {
                scope: SetScope::Local,
                ..
            } => "SET LOCAL",
            Statement::SetTransaction(_) => "SET TRANSACTION",
            Statement::SetConstraints => "SET CONSTRAINTS",
            _ => return,
        };
        self.warn(
            SqlState::NO_ACTIVE_SQL_TRANSACTION,
            &format!("{command} can only be used in transaction blocks"),
        );
    }

    fn set_router(
        &mut self,
        scope: SetScope,
        name: &str,
        value: &SetValue<'_>,
    ) -> Result<(), Stop> {
        let text = text_of_value(value).unwrap_or_default();
        check_router_setting(&self.router.topology(), name, &text)?;
        if matches!(value, SetValue::Default) {
            self.parameters.reset(name);
        } else {
            self.parameters
                .set_router(name, &text, scope == SetScope::Local);
        }
        self.complete("SET");
        Ok(())
    }

    pub(super) fn has_hint(&self) -> bool {
        let is_set = |name: &&str| self.parameters.router_setting(name).is_some();
        ["pgring.shard", "pgring.key"].iter().any(is_set)
    }

    async fn reset(&mut self, target: Option<&str>) -> Result<(), Stop> {
        let idle = self.transaction.block.phase() == Phase::Idle;
        match target {
            Some(name) => self.reset_setting(name).await?,
            None if idle => {
                self.join_for_setting().await?;
                self.parameters.reset_all();
                self.settle_settings().await?;
            }
            None => self.reset_all_in_block().await?,
        }
        self.complete("RESET");
        Ok(())
    }

    async fn reset_all_in_block(&mut self) -> Result<(), Stop> {
        let kept = self.parameters.local_defaults().clone();
        let mut statements = vec!["RESET ALL".to_owned()];
        for (name, startup) in self.parameters.startup().iter() {
            if kept.contains(name) {
                // It is at what the client logged in with, which the shard does not know to be the default.
                let session = self.parameters.shard_settings().get(name);
                let session = session.unwrap_or(startup);
                statements.push(self.set_statement(name, session, false));
                statements.push(self.set_statement(name, startup, true));
            } else {
                statements.push(self.set_statement(name, startup, false));
            }
        }
        let sql = statements.join(";");
        self.check_block_bytes(&sql)?;
        self.join_for_setting().await?;
        let statements: Vec<&str> = statements.iter().map(String::as_str).collect();
        self.run_on_participants(&statements).await?;
        self.parameters.reset_all();
        self.transaction.block.reset_all(&sql, &kept);
        Ok(())
    }

    /// Takes a setting back to its default.
    async fn reset_setting(&mut self, name: &str) -> Result<(), Stop> {
        if name.starts_with(ROUTER_PREFIX) {
            self.parameters.reset(name);
            return Ok(());
        }
        if is_mode(name) {
            return self.reset_mode(name).await;
        }
        self.note_custom(name);
        self.join_for_setting().await?;
        if self.transaction.block.phase() != Phase::Idle {
            let sql = match self.parameters.startup().get(name) {
                Some(startup) => self.set_statement(name, startup, false),
                None => format!("RESET {}", quoted(name)),
            };
            self.check_block_bytes(&sql)?;
            self.run_on_participants(&[&sql]).await?;
            self.parameters.reset(name);
            self.transaction.block.setting(name, false, &sql);
            return Ok(());
        }
        if !self.parameters.shard_settings().contains_key(name) {
            // PostgreSQL says whether there is such a setting.
            let shard = self.shards_for_setting().remove(0);
            let backend = self.join(shard).await?;
            command::run_apart(backend, &[&format!("RESET {}", quoted(name))])
                .await
                .map_err(error::of_command)?;
        }
        self.parameters.reset(name);
        self.settle_settings().await
    }

    /// The statement that sets a setting to a value as PostgreSQL shows it.
    fn set_statement(&self, name: &str, value: &str, local: bool) -> String {
        let quotes = "quote_all_identifiers";
        let own = self.parameters.shard_settings().get(quotes);
        let quotes_all = own.or_else(|| self.parameters.startup().get(quotes));
        match quotes_all.is_some_and(|value| &**value == "on") {
            // SET would quote the names of a list that are not quoted now.
            true => settings::set_config_statement(name, value, local),
            false => settings::set_statement(name, value, local),
        }
    }

    /// RESET of a mode of the block; outside one nothing stays of it.
    async fn reset_mode(&mut self, name: &str) -> Result<(), Stop> {
        self.join_for_setting().await?;
        let (reset, show) = (format!("RESET {name}"), format!("SHOW {name}"));
        let shown = self.run_on_participants(&[&reset, &show]).await?;
        let shown = shown.into_iter().next().flatten().unwrap_or_default();
        if self.transaction.block.phase() != Phase::Idle {
            self.transaction.block.set_modes(&mode(name, &shown));
            self.check_snapshot().await?;
        }
        Ok(())
    }

    /// Has the shards on which something is to be set take part, with the settings as they are still.
    async fn join_for_setting(&mut self) -> Result<(), Stop> {
        for shard in self.shards_for_setting() {
            self.join(shard).await?;
        }
        Ok(())
    }

    /// Brings the block's shards, or one shard, to the session's settings, so that the client hears what it must.
    async fn settle_settings(&mut self) -> Result<(), Stop> {
        for shard in self.shards_for_setting() {
            self.join(shard).await?;
            self.apply_settings(shard).await?;
            self.report_parameters(shard);
        }
        Ok(())
    }

    async fn discard(&mut self, target: &Discard) -> Result<(), Stop> {
        let tag = match target {
            Discard::All => {
                self.check_alone("DISCARD ALL")?;
                self.forget_named_statements();
                self.portals.clear();
                self.parameters.reset_all();
                self.parameters.reset("role");
                // What takes part now is kept otherwise, and not found.
                self.in_use.clear().await;
                self.transaction.release_idle();
                self.end_pins().await;
                // It is done; a shard, this one or a later one, has only to say what the client is to be told of its
                // parameters.
                self.reports_are_stale = true;
                if let Err(Stop::Gone) = self.settle_settings().await {
                    return Err(Stop::Gone);
                }
                "DISCARD ALL"
            }
            Discard::Plans => "DISCARD PLANS",
            Discard::Sequences => "DISCARD SEQUENCES",
            Discard::Temp => {
                self.discard_temporary().await?;
                "DISCARD TEMP"
            }
        };
        self.complete(tag);
        Ok(())
    }

    /// The unnamed one is Parse's alone.
    fn forget_named_statements(&mut self) {
        self.statements.retain(|name, _| name.is_empty());
    }

    fn deallocate(&mut self, target: Option<&str>) -> Result<(), Stop> {
        match target {
            None => {
                self.forget_named_statements();
                self.complete("DEALLOCATE ALL");
            }
            Some(name) => {
                if self.statements.remove(name).is_none() {
                    return Err(SessionError::UnknownStatement(name.to_owned()).into());
                }
                self.complete("DEALLOCATE");
            }
        }
        Ok(())
    }

    /// SHOW of a setting of the router's own.
    fn show_router(&mut self, name: &str, describe: bool) -> Result<(), Stop> {
        if ROUTER_SETTINGS.iter().all(|(known, _)| *known != name) {
            return Err(SessionError::UnknownSetting(name.to_owned()).into());
        }
        let value = self
            .parameters
            .router_setting(name)
            .cloned()
            .unwrap_or_else(|| if name == SNAPSHOT { PER_SHARD } else { "" }.into());
        if describe {
            let column = ColumnDescription::text(name);
            backend_message::write_row_description(self.client.out(), [column]);
        }
        backend_message::write_data_row(self.client.out(), [Some(value.as_bytes())]);
        self.complete("SHOW");
        Ok(())
    }

    /// Where a statement that one shard answers as it stands goes. Without `bound`, before Bind: a shard that can
    /// tell what the statement means.
    pub(super) fn forward_shard(
        &mut self,
        sentence: &Sentence<'_>,
        bound: Option<&Bound<'_>>,
    ) -> Result<ShardId, Stop> {
        match &sentence.statement {
            Statement::Fetch(cursor) | Statement::Move(cursor) | Statement::Close(Some(cursor)) => {
                // Of one that is not there any shard says so, in its turn.
                let shard = self.cursors.get(&**cursor).copied();
                Ok(shard.unwrap_or_else(|| self.any_shard()))
            }
            Statement::Declare { name, body, .. } => {
                let Some(bound) = bound else {
                    return self.shard_that_knows(body.text);
                };
                let template = self.template(&Arc::from(body.text), &Arc::from(bound.types))?;
                template.refuse_session_effects()?;
                let binding = Binding {
                    values: bound.values,
                    formats: bound.formats,
                    preferred: self.transaction.preferred(),
                    spread: self.router.next_spread(),
                    drawn: &[],
                    cursor: self.cursor_of(&template),
                };
                let plan = self.plan(&template, &binding)?;
                match plan.steps.as_slice() {
                    [step] if plan.inputs.is_empty() => Ok(step.shard),
                    _ => Err(refused(
                        &format!("cursor \"{name}\" over several shards"),
                        "cursor",
                        "its rows would have to be kept between two FETCHes",
                        "Fetch all rows at once, or name the sharding key.",
                    )),
                }
            }
            _ => Ok(self.any_shard()),
        }
    }

    /// The shard of the cursor, or portal, whose row a statement changes.
    pub(super) fn cursor_of(&self, template: &Template) -> Option<ShardId> {
        let name = template.current_of()?;
        let portal = || match self.portals.get(&**name)?.place {
            super::statements::Place::Shard(shard) => Some(shard),
            _ => None,
        };
        self.cursors.get(&**name).copied().or_else(portal)
    }

    /// Remembers cursors that came and went.
    pub(super) fn after_forward(&mut self, sentence: &Sentence<'_>, shard: ShardId) {
        match &sentence.statement {
            Statement::Declare { name, .. } => {
                self.cursors.insert(name.to_string(), shard);
            }
            Statement::Close(Some(name)) => {
                self.cursors.remove(&**name);
            }
            _ => {}
        }
    }

    /// [`Self::after_forward`] for a statement of the extended protocol.
    pub(super) fn note_forwarded(
        &mut self,
        prepared: &Prepared,
        shard: ShardId,
    ) -> Result<(), Stop> {
        if matches!(prepared.kind, super::statements::PreparedKind::Forward) {
            let tokens = lex::lex(&prepared.sql, &self.lex_limits())?;
            let statement = statement::classify(&prepared.sql, &tokens)?;
            self.hold_cursor(&statement, shard)?;
            self.after_forward(
                &Sentence {
                    sql: &prepared.sql,
                    tokens: &tokens,
                    statement,
                },
                shard,
            );
        }
        Ok(())
    }

    /// DDL, TRUNCATE, LOCK and what else the planner places without parameters.
    async fn run_on_shards(&mut self, sentence: &Sentence<'_>) -> Result<(), Stop> {
        if let Statement::CreateTableAs { body, .. } = &sentence.statement
            && lex::first_is(body.text, "execute")
        {
            return Err(refused(
                "CREATE TABLE AS EXECUTE",
                "sql-prepare",
                "a prepared statement has another name on each connection",
                "Write the query itself after AS.",
            ));
        }
        let search_path = self.search_path()?;
        let hint = self.hint(sentence.sql)?;
        let limits = self.lex_limits();
        let (statement, sql, tokens) = (&sentence.statement, sentence.sql, sentence.tokens);
        let context = planner::Context {
            topology: &self.topology(),
            search_path: &search_path,
            hint: hint.as_ref(),
            limits: &limits,
        };
        let mut planned = planner::utility(statement, sql, tokens, &context);
        let is_unloaded = matches!(&planned,
            Err(PlanError::Refused { refusal, .. }) if *refusal == Refusal::UnloadedTable);
        let is_news = is_unloaded && Box::pin(self.look_again()).await;
        let topology = self.topology();
        let context = planner::Context {
            topology: &topology,
            ..context
        };
        if is_news {
            planned = planner::utility(statement, sql, tokens, &context);
        }
        let plan = planned?;
        let temporary = planner::temporary(statement, sql, tokens, &context)?.is_some();
        if plan.access == Access::OutsideBlock {
            self.check_alone(sentence.statement.command_word())?;
        }
        if temporary {
            self.change_temporary().await?;
        } else {
            self.note_changes(statement, sql, tokens, &context);
        }
        if self.pipeline.executed
            && self.transaction.block.phase() == Phase::Idle
            && matches!(plan.access, Access::Write | Access::Ddl)
        {
            // What fails up to Sync takes it back.
            self.begin_implicit().await?;
        }
        Box::pin(self.open_snapshot(plan.access, plan.steps.len() > 1)).await?;
        if hint.is_some() {
            self.taint(&plan).await?;
        }
        self.run_plan(&plan, sentence.sql, 0).await?;
        // DROP … CASCADE takes away what is temporary too.
        self.doubt_temporary();
        Ok(())
    }

    /// EXPLAIN: how the statement is routed, then what the shards say.
    pub(super) async fn explain(
        &mut self,
        explain: &Explain<'_>,
        bound: &Bound<'_>,
        describe: bool,
    ) -> Result<(), Stop> {
        if lex::first_is(explain.body, "execute") {
            return self.explain_execute(explain, describe).await;
        }
        let template = self.template(&Arc::from(explain.body), &Arc::from(bound.types))?;
        if explain.analyze {
            template.refuse_session_effects()?;
        }
        let binding = Binding {
            values: bound.values,
            formats: bound.formats,
            preferred: self.transaction.preferred(),
            spread: self.router.next_spread(),
            drawn: &[],
            cursor: self.cursor_of(&template),
        };
        let plan = self.plan(&template, &binding)?;
        if explain.analyze {
            self.before(&template, &plan).await?;
        }
        let lines = self.explained(&template, &plan, explain, bound).await?;
        if describe {
            backend_message::write_row_description(self.client.out(), [explain.format.column()]);
        }
        for line in &lines {
            backend_message::write_data_row(self.client.out(), [Some(line.as_bytes())]);
        }
        self.complete("EXPLAIN");
        Ok(())
    }

    /// The lines of EXPLAIN: the routing, then what the shards say.
    pub(super) async fn explained(
        &mut self,
        template: &Template,
        plan: &Plan,
        explain: &Explain<'_>,
        bound: &Bound<'_>,
    ) -> Result<Vec<String>, Stop> {
        let crosses = plan.steps.len() > 1 || plan.merge.goes_on();
        if explain.analyze && crosses && plan.access != Access::Read {
            return Err(refused(
                "EXPLAIN ANALYZE of a write on several shards",
                "explain-analyze",
                "it would run the write on each shard",
                "Use EXPLAIN without ANALYZE, or name the sharding key.",
            ));
        }
        let topology = self.router.topology();
        let prefix = &explain.sql[..explain.sql.len() - explain.body.len()];
        let lines = template.describe(plan, &topology);
        let mut lines: Vec<String> = lines.iter().map(|line| line.replace('\n', " ")).collect();
        let is_text = explain.format == PlanFormat::Text;
        let mut documents = Vec::new();
        // Over gathered rows the last step has no plan before they are there: what gathers them is shown.
        let steps = match plan.inputs.as_slice() {
            [] => plan.steps.iter().collect(),
            inputs => inputs
                .iter()
                .flat_map(|input| &input.steps)
                .collect::<Vec<_>>(),
        };
        for step in steps {
            let sql = format!("{prefix}{}", text_of(step, explain.body));
            self.join(step.shard).await?;
            self.transaction.mark_used(step.shard);
            let backend = self.join(step.shard).await?;
            let reply = if bound.values.is_empty() {
                command::run(backend, &sql).await
            } else {
                let chosen: Vec<usize> = match &step.arguments {
                    StepArguments::AsSent => (0..bound.values.len()).collect(),
                    StepArguments::Chosen(chosen) => {
                        chosen.iter().map(|number| usize::from(*number)).collect()
                    }
                };
                let types: Vec<u32> = chosen.iter().map(|number| bound.type_of(*number)).collect();
                let formats = chosen.iter().map(|number| bound.format_of(*number));
                let values = chosen
                    .iter()
                    .map(|number| bound.values.get(*number).copied().flatten());
                command::write_bound_apart(backend, &sql, &types, formats, values);
                command::answer_apart(backend).await
            }
            .map_err(error::of_command)?;
            let name: &str = topology.shard_name(step.shard);
            let rows = reply.rows.into_iter().flatten().flatten();
            if is_text {
                lines.push(format!("Shard {name}:"));
                lines.extend(rows.map(|line| format!("  {line}")));
            } else {
                documents.push((name, rows.collect::<Vec<_>>().join("\n")));
            }
        }
        if !is_text {
            return Ok(vec![explain.format.document(&documents, &lines)]);
        }
        Ok(lines)
    }
}

/// What EXPLAIN asks for.
pub(super) struct Explain<'a> {
    /// The whole statement.
    pub sql: &'a str,
    /// What it explains.
    pub body: &'a str,
    /// Whether the statement is run.
    pub analyze: bool,
    /// How the plan is wanted.
    pub format: PlanFormat,
}

/// Whether a setting is a mode of the transaction.
fn is_mode(name: &str) -> bool {
    MODE_NAMES.contains(&name)
}

/// The mode that a setting shows so.
fn mode(name: &str, shown: &str) -> TransactionModes {
    let mut modes = TransactionModes::default();
    match name {
        "transaction_isolation" => modes.isolation = IsolationLevel::named(shown),
        "transaction_read_only" => modes.read_only = Some(shown == "on"),
        _ => modes.deferrable = Some(shown == "on"),
    }
    modes
}

/// Whether PostgreSQL knows an encoding of this name (its appendix of character sets, by their first letters).
pub(super) fn is_postgresql_encoding(name: &str) -> bool {
    const FAMILIES: [&str; 22] = [
        "abc", "alt", "big5", "euc", "gb", "iso", "johab", "koi", "latin", "mskanji", "mule",
        "shift", "sjis", "sql", "tcvn", "uhc", "unicode", "utf8", "vscii", "win", "windows", "mic",
    ];
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
    let name = name.to_ascii_lowercase();
    FAMILIES.iter().any(|family| name.starts_with(family))
}

/// The encodings in which the router can read SQL.
pub(super) fn is_known_encoding(name: &str) -> bool {
    let name: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect::<String>()
        .to_ascii_lowercase();
    matches!(name.as_str(), "utf8" | "unicode" | "sqlascii")
}

/// Whether a setting of the router's own exists and may have this value.
pub(super) fn check_router_setting(
    topology: &Topology,
    name: &str,
    value: &str,
) -> Result<(), SessionError> {
    let invalid = |expected: &str| SessionError::RouterSetting {
        name: name.to_owned(),
        value: value.to_owned(),
        expected: expected.to_owned(),
    };
    let known = ROUTER_SETTINGS.iter().find(|(known, _)| *known == name);
    let (_, expected) = known.ok_or_else(|| {
        invalid("pgring.shard, pgring.key or pgring.snapshot: there is no other setting")
    })?;
    if name == SNAPSHOT && !["", PER_SHARD, CONSISTENT].contains(&value) {
        return Err(invalid(expected));
    }
    if name == "pgring.shard" && !value.is_empty() && topology.shard_named(value).is_none() {
        return Err(invalid(expected));
    }
    Ok(())
}

fn check_encoding(value: &SetValue<'_>) -> Result<(), Stop> {
    match text_of_value(value) {
        Some(name) if !is_known_encoding(&name) && !is_postgresql_encoding(&name) => {
            Err(SessionError::NoEncoding(name).into())
        }
        Some(name) if !is_known_encoding(&name) => Err(refused(
            &format!("client_encoding {name}"),
            "client-encoding",
            "the router reads SQL as UTF-8",
            "Use client_encoding UTF8.",
        )),
        _ => Ok(()),
    }
}

/// The value of a SET to one word, string or number.
fn text_of_value(value: &SetValue<'_>) -> Option<String> {
    match value {
        SetValue::Values(values) => match values.as_slice() {
            [SetArgument::Text(text)] => Some(text.to_string()),
            [SetArgument::Number(number)] => Some(number.clone()),
            _ => None,
        },
        SetValue::Default | SetValue::Current | SetValue::Interval(_) => None,
    }
}

/// Whether a value switches a boolean setting on; what is not plainly so does not count.
pub(super) fn is_on(value: &str) -> bool {
    ["on", "true", "yes", "1"]
        .iter()
        .any(|on| value.eq_ignore_ascii_case(on))
}

/// Whether one shard answers the statement as it stands.
pub(super) fn is_forwarded(statement: &Statement<'_>) -> bool {
    match statement {
        Statement::Show(Some(name)) => !name.starts_with(ROUTER_PREFIX),
        Statement::Show(None)
        | Statement::Fetch(_)
        | Statement::Move(_)
        | Statement::Close(Some(_))
        | Statement::Declare { .. } => true,
        _ => false,
    }
}

/// Whether the statement sets something that an error later in its transaction takes back.
pub(super) fn sets(statement: &Statement<'_>) -> bool {
    matches!(
        statement,
        Statement::Set { .. }
            | Statement::Reset(_)
            | Statement::SetTransaction(_)
            | Statement::SetConstraints
            | Statement::SetSessionCharacteristics(_)
    )
}

/// Whether it matters to the statement what tables there are.
pub(super) fn is_planned(statement: &Statement<'_>) -> bool {
    let other = matches!(statement, Statement::Empty | Statement::Discard(_));
    !sets(statement) && !controls_transaction(statement) && !other
}

/// Whether the statement begins or ends a transaction, or a part of one.
pub(super) fn controls_transaction(statement: &Statement<'_>) -> bool {
    matches!(
        statement,
        Statement::Begin { .. }
            | Statement::Commit { .. }
            | Statement::Rollback { .. }
            | Statement::Savepoint(_)
            | Statement::Release(_)
            | Statement::RollbackTo(_)
            | Statement::PrepareTransaction(_)
            | Statement::CommitPrepared(_)
            | Statement::RollbackPrepared(_)
    )
}

fn two_phase_refused() -> Stop {
    refused(
        "two-phase commit by the client",
        "prepare-transaction",
        "a prepared transaction belongs to one shard, and the router prepares across shards itself",
        "Use COMMIT: it is atomic over all shards.",
    )
}

pub(super) fn refused(
    what: &str,
    code: &'static str,
    reason: &'static str,
    hint: &'static str,
) -> Stop {
    SessionError::Refused {
        what: what.to_owned(),
        code,
        reason,
        hint,
    }
    .into()
}
