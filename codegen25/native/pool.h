// A few threads that share loops: they spin between loops that follow closely, and sleep when none come.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace codegen25 {

// One caller at a time. Tasks are claimed one by one, so a thread that the system holds up leaves its share to the
// others, and costs at most the task that it had begun. When even that is long, the caller works alone for a while, and
// for longer when it happens again soon: where another program has taken a core, one thread is what there is.
class Pool {
public:
    explicit Pool(int threads);
    ~Pool();
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;

    int threads() const { return static_cast<int>(workers_.size()) + 1; }

    // body(task) for 0 ≤ task < tasks, in any order and on any thread; returns when all are done. Must not throw.
    template <class Body>
    void run(int tasks, const Body& body) {
        run(tasks, [](const void* context, int task) { (*static_cast<const Body*>(context))(task); }, &body);
    }

private:
    using Function = void (*)(const void*, int);
    // In one word, so that a claim and the loop that it belongs to are never apart: loop number, tasks, next task.
    static constexpr int kBits = 20;
    static constexpr uint64_t kMask = (uint64_t{1} << kBits) - 1;

    void run(int tasks, Function function, const void* context);
    bool work(uint64_t& seen);
    void serve();
    void wait(int tasks, int own, std::chrono::steady_clock::duration took);

    alignas(64) std::atomic<uint64_t> state_{0};
    alignas(64) std::atomic<int> done_{0};
    alignas(64) std::atomic<int> sleepers_{0};
    std::atomic<bool> stop_{false};
    Function function_ = nullptr;
    const void* context_ = nullptr;
    std::chrono::steady_clock::time_point alone_until_{};      // the caller works without help
    std::chrono::steady_clock::duration alone_for_{};          // how long the last time
    std::vector<std::thread> workers_;
};

}  // namespace codegen25
