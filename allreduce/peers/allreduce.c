/* One all-reduce of float32 after another among the ranks of Open MPI; rank 0 prints what it saw as JSON. argv: length, steps. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

static int ascending(const void *a, const void *b) {
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double cpu(void) {
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return u.ru_utime.tv_sec + u.ru_stime.tv_sec + 1e-6 * (u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

int main(int argc, char **argv) {
	MPI_Init(&argc, &argv);
	if (argc != 3) return 2;
	int length = atoi(argv[1]), steps = atoi(argv[2]), rank;
	MPI_Comm_rank(MPI_COMM_WORLD, &rank);
	float *in = malloc(length * sizeof *in), *out = malloc(length * sizeof *out);
	double *times = malloc(steps * sizeof *times);
	for (int i = 0; i < length; i++) in[i] = 1e-3f * (i + rank);
	double began = cpu();
	for (int i = 0; i < steps; i++) {
		double begin = MPI_Wtime();
		MPI_Allreduce(in, out, length, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD);
		times[i] = MPI_Wtime() - begin;
	}
	double mine = cpu() - began, all;
	MPI_Reduce(&mine, &all, 1, MPI_DOUBLE, MPI_SUM, 0, MPI_COMM_WORLD);
	if (rank == 0) {
		char version[MPI_MAX_LIBRARY_VERSION_STRING];
		int n;
		MPI_Get_library_version(version, &n);
		for (int i = 0; version[i]; i++) if (version[i] == ',') version[i] = 0;
		qsort(times, steps, sizeof *times, ascending);
		printf("{\"p50\": %g, \"p99\": %g, \"cpu\": %g, \"version\": \"%s\"}\n", 1e3 * times[steps / 2], 1e3 * times[steps * 99 / 100], 1e3 * all / steps, version);
	}
	MPI_Finalize();
	return 0;
}
