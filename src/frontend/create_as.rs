//! CREATE TABLE AS over several shards: the rows are gathered on the table's shard, which makes it of them, while the
//! others make it empty. All of it is one transaction.

use super::error::Stop;
use super::session::Session;
use super::several::{Request, write_step};
use crate::executor::fan_out::Show;
use crate::planner::plan::{Merge, Plan};
use crate::transaction::state::Phase;
use crate::wire::backend_message;
use crate::wire::frontend_message;

impl Session {
    /// Runs a plan whose inputs make a table on one of its steps' shards, in a transaction of its own if there is none.
    pub(super) async fn create_gathered(&mut self, plan: &Plan, sql: &str) -> Result<(), Stop> {
        let Merge::Of(place) = &plan.merge else {
            return Err(Stop::Gone);
        };
        let Some(home) = plan.steps.get(usize::from(*place)) else {
            return Err(Stop::Gone);
        };
        let own = self.transaction.block.phase() == Phase::Idle;
        if own {
            self.begin_implicit().await?;
        }
        let request = Request {
            sql,
            ..Request::default()
        };
        let router = self.router.clone();
        let mut held = router.merge_budget.statement();
        let gathering = Plan {
            steps: vec![home.clone()],
            ..plan.clone()
        };
        let inputs = self.inputs(&gathering, &request, "", false, &mut held);
        let (_, _, arrays) = inputs.await?;
        let show = Show {
            description: false,
            rows_max: None,
            copy: None,
        };
        let done = self
            .fan_out(plan, show, |out, step| {
                let arrays: &[_] = match step.shard == home.shard {
                    true => &arrays,
                    false => &[],
                };
                write_step(out, "", &request, step, arrays, &[]);
                frontend_message::write_sync(out);
            })
            .await
            .map_err(|stop| stop.in_text_of(plan, sql))?;
        drop(arrays);
        self.note_schema_change(plan.access);
        if own {
            self.commit().await?;
        }
        backend_message::write_command_complete(self.client.out(), &done.tag);
        Ok(())
    }
}
