//! Decides whether a message fits into the quotas of its producer and its organization: from
//! memory, as long as the last grant of this replica lasts.

mod ledger;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use self::ledger::{Ledger, Taken};
use crate::fault::chain;
use crate::job::ReplicaId;
use crate::quota::{Amount, Amounts, Holder, Kind, Over};
use crate::store::{QuotaAsk, Store, StoreError};
use crate::telemetry::names;

/// The quotas of each producer and of each organization.
#[derive(Debug, Clone, Copy)]
pub struct QuotaLimits {
    pub producer: Amounts,
    /// The quotas of each organization, for jobs alone.
    pub organization: Amounts,
}

/// The quotas as this replica knows them, and its grants.
pub struct Quotas {
    store: Store,
    replica: ReplicaId,
    limits: QuotaLimits,
    accounts: Mutex<HashMap<(Holder, Kind), Arc<Account>>>,
}

/// The most quotas that are kept in memory. The grant of a forgotten quota is unused until it
/// expires.
const ACCOUNTS: usize = 20_000;
/// A quota that was not used for this long is forgotten.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(120);

/// The delays before a full quota is asked about again while rows are being made.
const SETTLE: [Duration; 3] = [
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(100),
];

struct Account {
    holder: Holder,
    kind: Kind,
    ledger: Mutex<Ledger>,
    /// Held by the one caller that asks Postgres, for all that wait.
    asking: tokio::sync::Mutex<()>,
}

/// Room for one row, in each of the quotas that the row counts for. Dropping it gives the room
/// back.
#[must_use]
pub(super) struct Permit(Vec<(Arc<Account>, Amount)>);

/// How much of a refused message may be stored.
pub(super) enum LetterRoom {
    /// The whole dead letter.
    Whole(Permit),
    /// The dead letter without body and headers.
    WithoutBody(Permit),
    /// Nothing. If the refusal is announced now, the number of earlier ones that were not.
    Nothing(Option<u64>),
}

/// Room, or the reason why there is none.
pub(super) type Room = Result<Permit, Over>;

impl Permit {
    /// Records that the row is stored, where Postgres counts it.
    pub(super) fn stored(mut self) {
        for (account, amount) in self.0.drain(..) {
            account.ledger().stored(amount);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        for (account, amount) in self.0.drain(..) {
            account.ledger().given_back(amount);
        }
    }
}

impl Account {
    /// Takes room from memory. Returns `None` where only Postgres can decide.
    fn take(&self, need: Amount) -> Option<Result<(), Over>> {
        let taken = self.ledger().take(Instant::now(), need);
        match taken {
            Taken::Yes => Some(Ok(())),
            Taken::Over(over) => Some(Err(over)),
            Taken::Ask => None,
        }
    }

    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Quotas {
    /// Creates the quotas of this replica, which has no grants yet.
    #[must_use]
    pub fn new(store: Store, replica: ReplicaId, limits: QuotaLimits) -> Self {
        Self {
            store,
            replica,
            limits,
            accounts: Mutex::default(),
        }
    }

    /// Takes room for a job of `bytes` bytes in the quotas of its producer and its organization.
    pub(super) async fn job(
        &self,
        producer: Option<&str>,
        organization: &str,
        not_before: Option<OffsetDateTime>,
        bytes: usize,
    ) -> Result<Room, StoreError> {
        let is_later = not_before.is_some_and(|time| time > OffsetDateTime::now_utc());
        let kind = if is_later { Kind::Later } else { Kind::Open };
        let need = Amount::row(bytes as u64);
        let mut room = match self.room(of(producer), kind, need).await? {
            Ok(room) => room,
            Err(over) => return Ok(Err(over)),
        };
        // A job of a newer schema may name no organization.
        if !organization.is_empty() {
            match self
                .room(Holder::Organization(organization.to_owned()), kind, need)
                .await?
            {
                Ok(mut more) => room.0.append(&mut more.0),
                Err(over) => return Ok(Err(over)),
            }
        }
        Ok(Ok(room))
    }

    /// Takes room for a cancel that arrives before its job.
    pub(super) async fn key(&self, producer: Option<&str>) -> Result<Room, StoreError> {
        self.room(of(producer), Kind::Keys, Amount::row(0)).await
    }

    /// Takes room for a refused message, with its `bytes` bytes or without its body.
    pub(super) async fn letter(
        &self,
        producer: Option<&str>,
        bytes: u64,
    ) -> Result<LetterRoom, StoreError> {
        let over = match self
            .room(of(producer), Kind::DeadLetters, Amount::row(bytes))
            .await?
        {
            Ok(room) => return Ok(LetterRoom::Whole(room)),
            Err(over) => counted(over),
        };
        if over.in_bytes
            && let Ok(room) = self
                .room(of(producer), Kind::DeadLetters, Amount::row(0))
                .await?
        {
            return Ok(LetterRoom::WithoutBody(room));
        }
        let account = self.account(of(producer), Kind::DeadLetters);
        let announced = account.ledger().announces(Instant::now());
        Ok(LetterRoom::Nothing(announced))
    }

    async fn room(&self, holder: Holder, kind: Kind, need: Amount) -> Result<Room, StoreError> {
        let account = self.account(holder, kind);
        let room = match account.take(need) {
            Some(room) => room,
            None => {
                let _asking = account.asking.lock().await;
                match account.take(need) {
                    Some(room) => room,
                    None => self.ask(&account, need).await?,
                }
            }
        };
        Ok(room.map(|()| Permit(vec![(account, need)])))
    }

    /// Asks Postgres for room and takes from it. A row that is being made may be counted twice, as
    /// a row and as a part of the grant; while there is one, a full quota is asked about again
    /// after a short delay.
    async fn ask(&self, account: &Account, need: Amount) -> Result<Result<(), Over>, StoreError> {
        for pause in SETTLE {
            let is_making = account.ledger().making() != Amount::default();
            let room = self.ask_once(account, need).await?;
            if room.is_ok() || !is_making {
                return Ok(room);
            }
            tokio::time::sleep(pause).await;
        }
        self.ask_once(account, need).await
    }

    async fn ask_once(
        &self,
        account: &Account,
        need: Amount,
    ) -> Result<Result<(), Over>, StoreError> {
        let asked_at = Instant::now();
        let making = account.ledger().begin_to_ask();
        let limits = match account.holder {
            Holder::Producer(_) => &self.limits.producer,
            Holder::Organization(_) => &self.limits.organization,
        };
        let (holder, kind) = (&account.holder, account.kind);
        let ask = QuotaAsk {
            holder,
            kind,
            limits,
            replica: self.replica,
            making,
            need,
        };
        let granted = self.store.ask_quota(&ask).await?;
        let mut ledger = account.ledger();
        match &granted {
            Ok(grant) => ledger.granted(asked_at, *grant, need),
            Err(over) if ledger.refused(asked_at, Instant::now(), over.clone()) => {
                tracing::warn!(
                    quota.by = holder.word(),
                    quota.kind = kind.word(),
                    error = chain(over),
                    "a quota is full; messages over it are refused"
                );
            }
            Err(_) => {}
        }
        Ok(granted.map(drop))
    }

    fn account(&self, holder: Holder, kind: Kind) -> Arc<Account> {
        let mut accounts = self.accounts();
        let key = (holder, kind);
        if let Some(account) = accounts.get(&key) {
            return Arc::clone(account);
        }
        if accounts.len() >= ACCOUNTS {
            accounts.retain(|_, account| Arc::strong_count(account) > 1);
        }
        let ledger = Mutex::new(Ledger::new(Instant::now()));
        let account = Arc::new(Account {
            holder: key.0.clone(),
            kind,
            ledger,
            asking: tokio::sync::Mutex::default(),
        });
        accounts.insert(key, Arc::clone(&account));
        account
    }

    /// Forgets unused quotas, and sets the gauge of the fullest quotas.
    pub fn tidy(&self) {
        let now = Instant::now();
        let mut fullest: HashMap<(&'static str, &'static str), f64> = HashMap::new();
        for holder in ["producer", "organization"] {
            fullest.extend(Kind::ALL.map(|kind| ((holder, kind.word()), 0.0)));
        }
        self.accounts().retain(|(holder, kind), account| {
            let ledger = account.ledger();
            let is_used = Arc::strong_count(account) > 1
                || now.saturating_duration_since(ledger.used_at) < FORGOTTEN_AFTER;
            if is_used && let Some(most) = fullest.get_mut(&(holder.word(), kind.word())) {
                *most = most.max(ledger.fullness);
            }
            is_used
        });
        for ((by, kind), most) in fullest {
            metrics::gauge!(names::QUOTA_FULLEST, "by" => by, "kind" => kind).set(most);
        }
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<(Holder, Kind), Arc<Account>>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn of(producer: Option<&str>) -> Holder {
    Holder::Producer(producer.map(str::to_owned))
}

/// Counts a refusal: a message or a body that a quota has no room for.
pub(super) fn counted(over: Over) -> Over {
    metrics::counter!(names::QUOTA_REFUSALS, "kind" => over.kind.word(), "by" => over.holder.word()).increment(1);
    over
}
