//! Tickets: wake-ups that say "there may be work of this class". The database is the truth; a lost ticket loses nothing.
