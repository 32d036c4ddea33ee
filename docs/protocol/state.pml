/* What the helpers hold, as in payload/vcpu.inc and state.s; then what only the properties look at. */

#define IDLE 0
#define GREETED 1
#define JOINING 2
#define SOURCE 3
#define TARGET 4
#define FINISHED 5

/* Of a ring. A key is the number of the START that it comes from; 0 is the key that everybody knows. */
byte phase[ALL_RINGS];
bit busy[ALL_RINGS];
byte ending[ALL_RINGS];         /* 1: about to end a session, 2: has seen it alive since */
byte joined_generation[ALL_RINGS];
byte key[ALL_RINGS];
byte epoch[ALL_RINGS];
bit ended[ALL_RINGS];
bit resumed[ALL_RINGS];
byte sequence[ALL_LANES];
byte pages[ALL_RINGS];
byte epoch_pages[ALL_RINGS];

/* Of a helper: session_record, session_generation, session_epoch, session_progress, the two bitmaps. */
byte generation[SIDES];
byte secret[SIDES];             /* Ks; 0: wiped */
byte record_role[SIDES];
byte record_streams[SIDES];
byte session_epoch[SIDES];
byte joined[SIDES];
byte rings_ended[SIDES];
byte rings_finished[SIDES];
byte moved_in_epoch[SIDES];     /* one bit a page */
byte moved_in_session[SIDES];
byte nonce[SIDES];              /* ring 0's; 0: none */

#define R (s * RINGS + i)
#define LANE(r, l) ((r) * LANES + (l))
#define BIT(p) (1 << (p))
#define ALIVE(s) (generation[s] & 1)
#define IN_SESSION(r) (phase[r] >= JOINING)
#define WORKS(r) (phase[r] == SOURCE || phase[r] == TARGET)

/* What the host may still do. */
byte hellos;
byte kills;

/* A host that was hostile may become fair for good. */
#ifdef FAIR
bool fair;
byte asked[ALL_RINGS];          /* the operation that a fair host waits for */
byte fair_hello[SIDES];
#define HOSTILE (!fair)
#define KEPT_HELLOS (fair -> 0 : SIDES)
#define READY(r) (!fair || asked[r])
#define ASKED(r, op) (!fair || asked[r] == op)
#define MAY_IDLE(r) (!fair || !asked[r] || asked[r] == NOTHING)
#define SERVED(r) asked[r] = 0
#else
#define HOSTILE true
#define KEPT_HELLOS 0
#define READY(r) true
#define ASKED(r, op) true
#define MAY_IDLE(r) true
#define SERVED(r) skip
#endif

#define NOTHING 1
#define HELLO 2
#define START 3
#define JOIN 4
#define MOVE 5
#define EPOCH 6
#define FINISH 7
#define ABORT 8

/* Ghosts: no guard reads them. */
byte starts;                    /* of all helpers together */
byte started[SIDES];            /* the latest START of a helper */
bit starting[SIDES];
byte start_side[STARTS + 1];
byte start_role[STARTS + 1];
byte start_source[STARTS + 1];  /* nonces */
byte start_target[STARTS + 1];
byte start_streams[STARTS + 1];
byte taken[ALL_LANES];          /* packets made or accepted on a stream of this session */
byte epoch_ghost[SIDES];        /* pages moved in this epoch, and before it in this session */
byte session_ghost[SIDES];
byte ended_ghost[SIDES];        /* rings that have ended the epoch */
bit at_end[ALL_RINGS];           /* ends a session */
byte lost[ALL_RINGS];           /* 1: the host takes the vCPU away, 2: it is gone, and not yet started anew */
byte broken[SIDES];             /* the key under which a tag was bad */
bit complete[SIDES];            /* the session has ended with every ring's FINISH */

/* The terms of two session keys are the same. session.s START, kdf.s */
#ifdef DROP_ROLE_ORDER
#define SAME_HELLOS(a, b) ((start_source[a] == start_source[b] && start_target[a] == start_target[b]) || \
	(start_source[a] == start_target[b] && start_target[a] == start_source[b]))
#else
#define SAME_HELLOS(a, b) (start_source[a] == start_source[b] && start_target[a] == start_target[b])
#endif
#ifdef DROP_COUNT_IN_KEY
#define SAME_SECRET(a, b) SAME_HELLOS(a, b)
#else
#define SAME_SECRET(a, b) (SAME_HELLOS(a, b) && start_streams[a] == start_streams[b])
#endif
