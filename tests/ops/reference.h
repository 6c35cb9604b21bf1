/* SPDX-License-Identifier: MIT
 * reference.h - evaluates graphs on the host in float64 with plain loops: what the kernels are
 * measured against. */
#ifndef REFERENCE_H
#define REFERENCE_H

#include "graph/graph.h"

struct reference;

/* round_storage: every result is rounded to its node's dtype, as a device does that runs one kernel
 * per node. */
struct reference *reference_create(bool round_storage);
void reference_destroy(struct reference *r);
/* A variable's elements, zeros at first; the caller writes and reads them. A view lies inside its
 * parent's. The uint words of a control block are kept as numbers here, not as bits. */
double *reference_var(struct reference *r, const burin_var *var);
/* Evaluates every node in pool order; assigns and optimizers change the variables. False with
 * burin_error() set when the graph carries an error. */
bool reference_run(struct reference *r, burin_graph *g);
/* Output `part` of a node after the last run; valid until the next one. A leaf's is its variable.
 */
const double *reference_value(const struct reference *r, const burin_node *n, int part);

#endif
