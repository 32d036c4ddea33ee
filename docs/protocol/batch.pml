/* A chunk of one page. payload/batch.s, bitmap.s */

/* claim: blocks nothing; `held` says whether the page is ours. Before RESUME the epoch's map counts, after it both. */
inline claim(s, i, r, p) {
#ifdef DROP_LOCKED_CLAIM
	held = !(moved_in_epoch[s] & BIT(p));
	if
	:: held -> moved_in_epoch[s] = moved_in_epoch[s] | BIT(p)
	:: else
	fi;
#else
	d_step {
#ifdef DROP_EPOCH_BITS
		held = 1;
#else
		held = !(moved_in_epoch[s] & BIT(p));
#endif
#ifndef DROP_SESSION_BITS
		held = held && !(resumed[r] && (moved_in_session[s] & BIT(p)));
#endif
		if
		:: held -> moved_in_epoch[s] = moved_in_epoch[s] | BIT(p)
		:: else
		fi
	}
#endif
}

/* give_back */
inline give_back(s, i, r, p) {
	moved_in_epoch[s] = moved_in_epoch[s] & ~BIT(p)
}

/* move_chunk: EXPORT or IMPORT, as the phase says */
inline move(s, i, r, l, p) {
	claim(s, i, r, p);
	if
	:: !held
	:: else ->
		atomic {
			held = 0;
			if
			:: phase[r] == SOURCE ->
				opened = 1;
				seal(s, i, r, l, PAGE, p, 0)
			:: phase[r] == TARGET ->
				open(s, i, r, l, PAGE, p, 0)
			fi;
			if
			:: opened -> moved(s, i, r, p)
			:: else
			fi
		};
		if
		:: opened
		:: !opened -> give_back(s, i, r, p)
#ifndef NO_FORGERY
		:: !opened && HOSTILE -> bad_tag(s, i, r, p)
#endif
		fi
	fi
}

/* The last thing that is done with the page, and with the session's other shared state, comes before the session ends. */
inline bad_tag(s, i, r, p) {
#ifdef DROP_FAIL_CLOSED
	d_step {
		moved_in_epoch[s] = moved_in_epoch[s] & ~BIT(p);
		broken[s] = key[r]
	}
#else
#ifndef LATE_GIVE_BACK
	give_back(s, i, r, p);
#endif
	end_session(s, i, r);
	d_step {
		broken[s] = key[r];
		forget(s, i, r)
	};
#ifdef LATE_GIVE_BACK
	give_back(s, i, r, p)
#endif
#endif
}

/* Memory changes, or is read and sealed. Nothing of an earlier session gets here when a later START has begun. */
inline moved(s, i, r, p) {
	assert(key[r] == started[s]);
	assert(epoch[r] == session_epoch[s]);
	assert(!(epoch_ghost[s] & BIT(p)));
	assert(!(resumed[r] && (session_ghost[s] & BIT(p))));
	epoch_ghost[s] = epoch_ghost[s] | BIT(p);
	pages[r]++;
	epoch_pages[r]++
}

/* RESUME */
inline resume(s, i, r) {
	resumed[r] = 1
}
