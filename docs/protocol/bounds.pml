/* How far a configuration goes. */

#ifndef SIDES
#define SIDES 2         /* helpers; 1: one of them, and packets as the host likes (ANY_PACKET) */
#endif
#ifndef RINGS
#define RINGS 2         /* of each helper */
#endif
#ifndef LANES
#define LANES 2         /* 0 bulk, 1 urgent */
#endif
#ifndef PAGES
#define PAGES 2
#endif
#ifndef EPOCHS
#define EPOCHS 2
#endif
#ifndef HELLOS
#define HELLOS SIDES    /* by all helpers together */
#endif
#ifndef KILLS
#define KILLS 0         /* vCPUs lost in the middle of their work and started anew */
#endif
#ifndef STARTS
#define STARTS HELLOS   /* by all helpers together */
#endif

/* SAME_TERMS: helper 0 is always asked to be the source, helper 1 the target, and all rings are in the session. Else
 * the host chooses role and number. NO_RESUME, NO_ABORT, NO_FORGERY: the host does nothing of the kind. */

#define ALL_RINGS (SIDES * RINGS)
#define ALL_LANES (ALL_RINGS * LANES)
#define TURNS (PAGES * EPOCHS + EPOCHS + 1) /* packets of a stream: its pages, an end for every epoch, one for the session */

/* FINE: rings of a helper interleave between any two accesses to what they share. Else an operation is one step. */
#ifdef FINE
#define OPERATION
#else
#define OPERATION atomic
#endif
