/* The hostile host: any operation on any ring at any time, any packet, any vCPU lost and started anew. payload/ring.s */

#ifdef DROP_PENDING
#define MAY_MOVE(r) true
#else
#define MAY_MOVE(r) (!ended[r])
#endif

/* The block is taken with a locked instruction, before the look at the session. */
inline wake(s, i, r) {
#ifdef DROP_WAKE_LOCK
	attend(s, i, r);
	busy[r] = 1
#else
	d_step {
		READY(r) ->
		busy[r] = 1
	};
	attend(s, i, r)
#endif
}

inline serve_one(s, i, r) {
	if
	:: MAY_IDLE(r)
	:: ASKED(r, HELLO) && i == 0 && phase[r] <= GREETED && hellos < HELLOS - KEPT_HELLOS -> hello(s, i, r)
	:: ASKED(r, START) && i == 0 && phase[r] == GREETED && starts < STARTS -> start(s, i, r)
	:: ASKED(r, JOIN) && i > 0 && phase[r] == IDLE -> join(s, i, r)
	:: ASKED(r, MOVE) && WORKS(r) && MAY_MOVE(r) && PAGES > 0 ->
		do
		:: p < PAGES - 1 -> p++
		:: break
		od;
		do
		:: l < LANES - 1 -> l++
		:: break
		od;
		move(s, i, r, l, p)
	:: ASKED(r, EPOCH) && WORKS(r) && !ended[r] && epoch[r] < EPOCHS - 1 -> end_epoch(s, i, r)
	:: ASKED(r, FINISH) && WORKS(r) && !ended[r] -> finish(s, i, r)
#ifndef NO_RESUME
	:: HOSTILE && WORKS(r) && !resumed[r] -> resume(s, i, r)
#endif
#ifndef NO_ABORT
	:: ASKED(r, ABORT) -> abort(s, i, r)
#endif
	fi
}

inline release_locals() {
	seen = 0;
	n = 0;
	p = 0;
	l = 0;
	peer = 0;
	from_start = 0;
	from_ring = 0;
	from_lane = 0;
	from_turn = 0;
	rest = 0;
	held = 0;
	last = 0;
	alive = 0;
	opened = 0
}

proctype ring(byte s; byte i) {
	byte seen, n, p, l, peer, from_start, from_ring, from_lane, from_turn;
	bit rest, held, last, alive, opened, anew;
	do
	:: {
		if
		:: anew ->
			entry(s, i, R);
			anew = 0
		:: else
		fi;
end:		do
		:: OPERATION {
			wake(s, i, R);
			serve_one(s, i, R);
			d_step {
				busy[R] = 0;
				SERVED(R);
				release_locals()
			}
		   }
		od
	   }
#if KILLS
	   unless {
		d_step {
			lost[R] == 1 ->
			lost[R] = 2;
			anew = 1;
			release_locals()
		}
	   }
#endif
	od
}

#if KILLS
active proctype host() {
	byte victim;
end:	do
	:: atomic {
		kills < KILLS && HOSTILE ->
		kills++;
		do
		:: victim < ALL_RINGS - 1 -> victim++
		:: break
		od;
		lost[victim] = 1;
		victim = 0
	   }
	od
}
#endif

#define RESTING(r) (!at_end[r] && lost[r] == 0)
#if RINGS == 1
#define ALL_REST(s) RESTING(s)
#elif RINGS == 2
#define ALL_REST(s) (RESTING(2 * s) && RESTING(2 * s + 1))
#else
#define ALL_REST(s) (RESTING(3 * s) && RESTING(3 * s + 1) && RESTING(3 * s + 2))
#endif

/* Ks is there for those who have yet to join, and for nobody when the session is over. */
#define KEPT(s) (!ALIVE(s) || joined[s] + 1 >= record_streams[s] || secret[s] == started[s])
#define GONE(s) (ALIVE(s) || starting[s] || !ALL_REST(s) || secret[s] == 0)

active proctype monitor() {
	byte s;
end:	atomic {
		!(KEPT(0) && GONE(0)
#if SIDES > 1
		&& KEPT(1) && GONE(1)
#endif
		) ->
		assert(false)
	}
}

#ifdef FAIR
/* From any state that a hostile host has led to, a fair one brings a fresh session to its end. What it asks for and does
 * not get leaves it waiting, which is an invalid end state. */
inline ask(r, op) {
	asked[r] = op;
	!asked[r]
}

inline ask_sides(j, op) {
	for (s : 0 .. SIDES - 1) {
		ask(s * RINGS + j, op)
	}
}

inline ask_all(op) {
	for (j : 0 .. RINGS - 1) {
		ask_sides(j, op)
	}
}

active proctype fair_host() {
	byte s, j, e;
	fair = true;
	for (j : 0 .. ALL_RINGS - 1) {
		!busy[j] && !lost[j]
	}
	ask_sides(0, ABORT);
	ask_all(NOTHING);
	ask_sides(0, HELLO);
	for (s : 0 .. SIDES - 1) {
		fair_hello[s] = nonce[s]
	}
	ask_sides(0, START);
	for (j : 1 .. RINGS - 1) {
		ask_sides(j, JOIN)
	}
	for (e : 0 .. EPOCHS - 1) {
		ask_sides((e + 1) % RINGS, MOVE);
		for (s : 0 .. SIDES - 1) {
			assert(epoch_ghost[s] == 1)
		}
		if
		:: e < EPOCHS - 1 -> ask_all(EPOCH)
		:: else
		fi;
		ask_all(NOTHING)
	}
	ask_all(FINISH);
	for (s : 0 .. SIDES - 1) {
		assert(complete[s] && !ALIVE(s))
	}
}
#endif

init {
	byte s, i;
	atomic {
		for (s : 0 .. SIDES - 1) {
			for (i : 0 .. RINGS - 1) {
				run ring(s, i)
			}
		}
	}
}
