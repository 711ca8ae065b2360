//! `pgring serve`: the router, until a signal.

use super::ConfigArgument;
use super::stop::{ReloadSignal, StopSignal};
use crate::backend::control::Control;
use crate::config::Config;
use crate::frontend::{Listener, ServeError};
use crate::router::Router;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Run the router until Ctrl-C or SIGTERM; SIGHUP loads the shard map again
#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    #[command(flatten)]
    config: ConfigArgument,
}

impl Serve {
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let mut stop = StopSignal::catch()?;
        let mut reload = ReloadSignal::catch()?;
        let config = self.config.load()?;
        let mut running = tokio::select! {
            running = Running::start(config) => running?,
            () = stop.wait() => return Ok(()),
        };
        super::print(&format!("listening on {}\n", running.address))?;
        loop {
            tokio::select! {
                ended = running.ended() => return ended,
                () = stop.wait() => return running.stop().await,
                () = reload.wait() => match self.reload(&running.router).await {
                    Ok(()) => tracing::info!("the shard map was loaded again"),
                    Err(error) => tracing::error!(%error, "the shard map stays as it was"),
                },
            }
        }
    }

    async fn reload(&self, router: &Router) -> anyhow::Result<()> {
        let map = Arc::new(self.config.load()?);
        Ok(router.reload(map).await?)
    }
}

/// A router of this process that accepts clients.
pub(super) struct Running {
    /// `listen.address`, with the port that was given where it says 0.
    pub(super) address: String,
    router: Arc<Router>,
    stop: watch::Sender<bool>,
    serving: JoinHandle<Result<(), ServeError>>,
    control: Arc<Control>,
}

impl Running {
    pub(super) async fn start(config: Config) -> anyhow::Result<Self> {
        let config = Arc::new(config);
        let address = config.listen.address.to_string();
        let control = Control::start(config.clone()).await?;
        let router = Router::start(config, control.clone());
        let (stop, stopped) = watch::channel(false);
        let listener = Listener::bind(router.clone(), stopped).await?;
        let serving = tokio::spawn(listener.serve());
        Ok(Self {
            address,
            router,
            stop,
            serving,
            control,
        })
    }

    /// Ends when the router does, which is an error unless somebody stopped it. Cancel safe.
    pub(super) async fn ended(&mut self) -> anyhow::Result<()> {
        Ok((&mut self.serving).await??)
    }

    /// Lets no client in any more, ends the sessions, and returns when they have ended.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        let _ = self.stop.send(true);
        let served = self.serving.await?;
        self.control.leave().await;
        Ok(served?)
    }
}
