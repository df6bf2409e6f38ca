// Measures the two ceilings of the roofline model on this machine's processors: peak fp32 arithmetic and memory bandwidth.
//
//   peak fma <threads> <iterations>     x = x * a + b in registers, on as many independent values as the units need
//   peak triad <threads> <elements>     y[i] = u[i] + s * v[i] in float64 on arrays far larger than the caches
//
// Prints one JSON line. The constants are powers of two, so that a fused multiply-add rounds as a multiplication
// followed by an addition does and the checksum (sum of bit patterns) equals that of the Python twin in
// core/hardware/roofline.py bit for bit. Needs GCC or Clang (vector extensions).
#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64, kAccumulators = 16;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32, kAccumulators = 12;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16, kAccumulators = 24;
#else
constexpr int kVectorBytes = 16, kAccumulators = 12;
#endif

typedef float Vector __attribute__((vector_size(kVectorBytes)));
constexpr int kWidth = kVectorBytes / static_cast<int>(sizeof(float));
constexpr int kLanes = kAccumulators * kWidth;
constexpr int kTriadRounds = 6;
constexpr double kTriadScale = 0.5;

double now_s() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Starts all threads' work at one moment and returns the time until the last one is done.
double timed(int threads, const std::function<void(int)> &work) {
    std::atomic<int> ready{0};
    std::atomic<bool> go{false};
    std::vector<double> ends(static_cast<std::size_t>(threads));
    std::vector<std::thread> pool;
    for (int t = 0; t < threads; ++t)
        pool.emplace_back([&, t] {
            ++ready;
            while (!go) std::this_thread::yield();
            work(t);
            ends[static_cast<std::size_t>(t)] = now_s();
        });
    while (ready < threads) std::this_thread::yield();
    const double begin = now_s();
    go = true;
    for (auto &thread : pool) thread.join();
    return *std::max_element(ends.begin(), ends.end()) - begin;
}

// The accumulators are independent, so that every arithmetic unit always has the next operation at hand. Their indices are
// constants (a parameter pack), so that the compiler keeps each in a register.
template <std::size_t... I>
void multiply_add(float *values, std::int64_t iterations, std::index_sequence<I...>) {
    Vector x[sizeof...(I)], a, b;
    for (int lane = 0; lane < kWidth; ++lane) {
        a[lane] = -0.5f;
        b[lane] = 1.0f + static_cast<float>(lane) / 7.0f;
    }
    (std::memcpy(&x[I], values + I * kWidth, sizeof(Vector)), ...);
    for (std::int64_t n = 0; n < iterations; ++n) ((x[I] = x[I] * a + b), ...);
    (std::memcpy(values + I * kWidth, &x[I], sizeof(Vector)), ...);
}

std::uint64_t multiply_add_checksum(std::int64_t iterations) {
    float values[kLanes];
    for (int i = 0; i < kLanes; ++i) values[i] = static_cast<float>(i) / 3.0f;
    multiply_add(values, iterations, std::make_index_sequence<kAccumulators>());
    std::uint64_t checksum = 0;
    for (const float value : values) {
        std::uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        checksum += bits;
    }
    return checksum;
}

int run_fma(int threads, std::int64_t iterations) {
    std::vector<std::uint64_t> sums(static_cast<std::size_t>(threads));
    const double seconds = timed(threads, [&](int t) { sums[static_cast<std::size_t>(t)] = multiply_add_checksum(iterations); });
    const double operations = 2.0 * kLanes * static_cast<double>(iterations) * threads;
    std::printf("{\"lanes\": %d, \"vector_lanes\": %d, \"iterations\": %lld, \"seconds\": %.9f, \"per_s\": %.6e, \"checksum\": %llu}\n",
                kLanes, kWidth, static_cast<long long>(iterations), seconds, operations / seconds,
                static_cast<unsigned long long>(sums[0]));
    return std::all_of(sums.begin(), sums.end(), [&](std::uint64_t sum) { return sum == sums[0]; }) ? 0 : 2;
}

struct Span {
    std::size_t begin, end;
};

Span share(std::size_t elements, int threads, int t) {
    const auto n = static_cast<std::size_t>(threads), i = static_cast<std::size_t>(t);
    return {elements * i / n, elements * (i + 1) / n};
}

int run_triad(int threads, std::size_t elements) {
    // Left uninitialized here: each thread touches its own share first, so that it lies in the thread's memory node.
    std::unique_ptr<double[]> y(new double[elements]), u(new double[elements]), v(new double[elements]);
    timed(threads, [&](int t) {
        const Span span = share(elements, threads, t);
        for (std::size_t i = span.begin; i < span.end; ++i) {
            y[i] = 0.0;
            u[i] = static_cast<double>(i % 1013) / 3.0;
            v[i] = static_cast<double>(i % 509) / 7.0;
        }
    });
    double best = 1e300;
    for (int round = 0; round < kTriadRounds; ++round)
        best = std::min(best, timed(threads, [&](int t) {
            const Span span = share(elements, threads, t);
            double *__restrict out = y.get();
            const double *__restrict first = u.get(), *__restrict second = v.get();
            for (std::size_t i = span.begin; i < span.end; ++i) out[i] = first[i] + kTriadScale * second[i];
        }));
    std::uint64_t checksum = 0;
    for (std::size_t i = 0; i < elements; ++i) {
        std::uint64_t bits;
        std::memcpy(&bits, &y[i], sizeof bits);
        checksum += bits;
    }
    const double bytes = 3.0 * sizeof(double) * static_cast<double>(elements);
    std::printf("{\"elements\": %zu, \"seconds\": %.9f, \"per_s\": %.6e, \"checksum\": %llu}\n", elements, best, bytes / best,
                static_cast<unsigned long long>(checksum));
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    const std::string kernel = argc == 4 ? argv[1] : "";
    const int threads = argc == 4 ? std::atoi(argv[2]) : 0;
    const long long size = argc == 4 ? std::atoll(argv[3]) : 0;
    if (threads < 1 || size < 1 || (kernel != "fma" && kernel != "triad")) {
        std::fprintf(stderr, "usage: peak fma <threads> <iterations> | peak triad <threads> <elements>\n");
        return 64;
    }
    return kernel == "fma" ? run_fma(threads, size) : run_triad(threads, static_cast<std::size_t>(size));
}
