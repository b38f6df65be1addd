//! Commits until the outcome is known: a commit whose answer was lost is looked up before it is
//! repeated, and one that cannot be stored is replaced by what its fault decides.

use super::{After, LONGEST_DELIVERY, Worker, fenced, report};
use crate::engine::{Commit, Decision, EffectOutcome, Ended, Position, Product, decide};
use crate::store::{CommitError, Committed, Landed, Run, SoFar, Tables};

impl<P: Product, T: Tables<Changes = P::Changes>> Worker<P, T> {
    /// Commits, and repeats the commit until its outcome is known.
    pub(super) async fn commit(
        &self,
        run: Run<'_>,
        at: &Position<'_>,
        mut commit: Commit<P::Changes>,
    ) -> Result<Committed, After> {
        let (mut replaced, mut in_doubt) = (false, false);
        loop {
            let error = match self.context.writer.commit(run, &commit).await {
                Ok(committed) => {
                    report::committed(run, at, &commit, &committed);
                    return Ok(committed);
                }
                Err(error) => error,
            };
            let fault = match error {
                CommitError::Fenced => return Err(fenced(at.stage)),
                CommitError::Changes(fault) => fault,
                CommitError::Store(error) => error.into(),
            };
            let is_unavailable = fault.class() == crate::fault::Class::Infrastructure;
            if is_unavailable {
                report::unavailable(&fault);
                self.context.pause().await;
            }
            // An earlier commit that seemed lost may have landed late, and may be the reason why
            // this one fails.
            if is_unavailable || std::mem::take(&mut in_doubt) {
                match self
                    .context
                    .until_available(|| self.context.store().landed(run, &commit))
                    .await
                {
                    Ok(Landed::No) if is_unavailable => {
                        in_doubt = true;
                        continue;
                    }
                    Ok(Landed::No) => {}
                    Ok(Landed::Yes) => {
                        // Its follow-ups are stamped, but it is not known which.
                        self.context.stamps.doubt_all();
                        return Err(After::ReadAgain);
                    }
                    Ok(Landed::Fenced) | Err(_) => return Err(fenced(at.stage)),
                }
            }
            if replaced {
                tracing::error!(
                    error = fault.message(),
                    "the job can be neither committed nor parked; it is due again in a minute"
                );
                self.context
                    .postpone(
                        run.fence,
                        LONGEST_DELIVERY,
                        SoFar::Only(commit.partial.as_deref()),
                    )
                    .await;
                return Err(After::Stop);
            }
            replaced = true;
            let effect = commit.effect.take();
            match decide(at, Ended::Fault(fault), rand::random()) {
                // The effect has happened, even if its outcome cannot be stored as the stage
                // returned it.
                Decision::Commit(instead) => {
                    let effect = effect.map(|effect| EffectOutcome {
                        provider_ref: None,
                        ..effect
                    });
                    commit = Commit { effect, ..*instead };
                }
                Decision::Repeat | Decision::Infrastructure(_) | Decision::GiveUp => {
                    return Err(After::Stop);
                }
            }
        }
    }
}
