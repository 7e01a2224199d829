// LLaMA forward (Touvron et al., 2023) for any number of rows of any number of sequences.
#pragma once

#include <mutex>
#include <span>
#include <vector>

#include "kernels.h"
#include "matrix.h"
#include "pages.h"
#include "pool.h"

namespace codegen25 {

struct Shape {
    int hidden, intermediate, heads, kv_heads, head_dim, max_positions;
    float rope_theta, eps;
};

// Matrices are borrowed: whoever makes the engine keeps them alive.
struct Layer {
    std::vector<float> input_norm, post_norm;  // [hidden]
    const Matrix *q, *k, *v, *o, *gate, *up, *down;
};

struct Row {
    int64_t sequence;
    std::span<const int32_t> tokens;
    bool all_logits;
};

class Engine {
public:
    Engine(const Shape& shape, const Matrix& embedding, const Matrix& head, std::vector<Layer> layers,
           std::vector<float> norm, int threads, const Kernels& kernels, size_t cache_limit);

    // Append tokens to sequences. Logits of every token of a row, or of its last, one after the other: [wanted, vocab].
    // The rows have been checked. Throws std::bad_alloc, with every sequence as it was.
    void forward(std::span<const Row> rows, float* logits);

    // One caller at a time for everything below and above.
    std::mutex& mutex() { return mutex_; }
    Sequences& sequences() { return sequences_; }
    const Pages& pages() const { return pages_; }
    const Shape& shape() const { return shape_; }
    int vocabulary() const { return head_.rows(); }
    int threads() const { return pool_.threads(); }
    const char* isa() const { return kernels_.name; }

private:
    // The tokens of one pass, as they stand in the buffers: a part of the rows of a call.
    struct Part {
        const std::vector<int>* pages;
        int first;     // its first token's place in the buffers
        int count;
        int position;  // of that token in its sequence
    };
    struct Output {
        const Matrix* matrix;
        float* out;
        size_t stride;
    };

    // One task of attention: some rows of a part and one head of keys, over chunks [chunk, end).
    struct Task {
        const Part* part;
        int row, rows, head, chunk, end;
    };

    void pass(std::span<const Part> parts, std::span<const int32_t> tokens, int count);
    void head(std::span<const int> wanted, float* logits);
    void each(int rows, const auto& body);
    void grow(int rows);
    void rotations(int positions);

    Activations activations(size_t columns);
    void normalize(const std::vector<float>& weight, std::span<const int> rows);
    void round(const float* x, size_t stride, int count);
    int unit(int tiles) const;
    void multiply(std::initializer_list<Output> outputs, int rows, bool add);
    void gated(const Matrix& gate, const Matrix& raise, int rows);

    void place(const Part& part, int layer, int row, int count);
    void plan(std::span<const Part> parts);
    Partial partial(int slot_of_query, int chunk);
    void attention(int layer, int count);
    void attend(const Task& task, int layer, int count);
    void finish(const Partial& result, int row, int head);

    Shape shape_;
    const Matrix& embedding_;
    const Matrix& head_;
    std::vector<Layer> layers_;
    std::vector<float> norm_;
    const Kernels& kernels_;
    Pool pool_;
    Pages pages_;
    Sequences sequences_;
    std::mutex mutex_;

    int depth_;                                   // head_dim with its padding
    size_t hidden_, qkv_, attended_, inner_;      // strides of the buffers: columns, each with its padding
    size_t q_at_, k_at_, v_at_;                   // columns of the three in a row of qkv
    int capacity_ = 0;                            // rows that the buffers have room for
    std::vector<float> x_, normed_, qkv_rows_, attended_rows_, inner_rows_;
    std::vector<int8_t> values_;
    std::vector<float> scales_;
    std::vector<int32_t> starts_;
    std::vector<float> cos_, sin_;                // [positions, head_dim / 2]
    std::vector<float> queries_;                  // [kv head, row, query head that shares it, depth]
    std::vector<Task> tasks_;
    int slots_ = 1;                               // partial results of a query that wait to be merged
    std::vector<float> partials_;                 // [as queries, slot, depth + 2]
};

}  // namespace codegen25
