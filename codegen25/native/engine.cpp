#include "engine.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "half.h"

namespace codegen25 {
namespace {

constexpr int kPass = 512;       // tokens that go through the layers together
constexpr int kRowBlock = 8;     // rows of one sequence that share a task of attention, at most
constexpr int kFewRows = 4;      // fewer are done by the caller alone: a loop of the pool costs more

constexpr int up(int n, int multiple) { return (n + multiple - 1) / multiple * multiple; }
int tiles_width(const Matrix& m) { return m.weights().tiles * kLanes; }

}  // namespace

Engine::Engine(const Shape& shape, const Matrix& embedding, const Matrix& head, std::vector<Layer> layers,
               std::vector<float> norm, int threads, const Kernels& kernels, size_t cache_limit)
    : shape_(shape),
      embedding_(embedding),
      head_(head),
      layers_(std::move(layers)),
      norm_(std::move(norm)),
      kernels_(kernels),
      pool_(threads),
      pages_(static_cast<int>(layers_.size()), shape.kv_heads, up(shape.head_dim, kLanes), cache_limit),
      sequences_(pages_),
      depth_(up(shape.head_dim, kLanes)),
      hidden_(up(shape.hidden, kGroup)),
      attended_(up(shape.heads * shape.head_dim, kGroup)),
      inner_(up(shape.intermediate, kGroup)) {
    const Layer& layer = layers_.front();
    q_at_ = 0;
    k_at_ = q_at_ + tiles_width(*layer.q);
    v_at_ = k_at_ + tiles_width(*layer.k);
    qkv_ = v_at_ + tiles_width(*layer.v);
    norm_.resize(hidden_);
    for (Layer& l : layers_) {
        l.input_norm.resize(hidden_);
        l.post_norm.resize(hidden_);
    }
}

void Engine::forward(std::span<const Row> rows, float* logits) {
    try {
        for (const Row& row : rows) sequences_.reserve(row.sequence, static_cast<int>(row.tokens.size()));
    } catch (const std::bad_alloc&) {
        for (const Row& row : rows) sequences_.trim(row.sequence);
        throw;
    }
    std::vector<Part> parts;
    std::vector<int32_t> tokens;
    std::vector<int> wanted;
    const auto run = [&] {
        const int count = static_cast<int>(tokens.size());
        if (count == 0) return;
        pass(parts, tokens, count);
        head(wanted, logits);
        logits += wanted.size() * vocabulary();
        parts.clear();
        tokens.clear();
        wanted.clear();
    };
    for (const Row& row : rows) {
        const int total = static_cast<int>(row.tokens.size()), past = sequences_.length(row.sequence);
        for (int done = 0; done < total;) {
            const int first = static_cast<int>(tokens.size()), count = std::min(kPass - first, total - done);
            parts.push_back({&sequences_.pages(row.sequence), first, count, past + done});
            tokens.insert(tokens.end(), row.tokens.begin() + done, row.tokens.begin() + done + count);
            done += count;
            for (int i = 0; i < count; i++)
                if (row.all_logits || (done == total && i == count - 1)) wanted.push_back(first + i);
            if (static_cast<int>(tokens.size()) == kPass) run();
        }
    }
    run();
    for (const Row& row : rows) sequences_.append(row.sequence, static_cast<int>(row.tokens.size()));
}

// ------------------------------------------------------------------------------------------------------------- a pass

void Engine::grow(int rows) {
    if (rows <= capacity_) return;
    capacity_ = std::min(kPass, std::max(rows, 2 * capacity_));
    const size_t n = capacity_, widest = std::max({hidden_, attended_, inner_});
    x_.assign(n * hidden_, 0);
    normed_.assign(n * hidden_, 0);
    qkv_rows_.assign(n * qkv_, 0);
    attended_rows_.assign(n * attended_, 0);
    inner_rows_.assign(n * inner_, 0);
    queries_.assign(n * shape_.heads * depth_, 0);
    values_.assign(n * widest, 0);
    scales_.assign(n * widest / kGroup, 0);
    starts_.assign(n * widest / kGroup * Activations::kStarts, 0);
}

// Angles in fp32, as every other implementation has them: a more exact one would differ from what was trained.
void Engine::rotations(int positions) {
    const int half = shape_.head_dim / 2, have = static_cast<int>(cos_.size()) / half;
    if (positions <= have) return;
    positions = std::min(shape_.max_positions, std::max(positions, 2 * have));
    cos_.resize(static_cast<size_t>(positions) * half);
    sin_.resize(cos_.size());
    for (int i = 0; i < half; i++) {
        const float exponent = -static_cast<float>(2 * i) / static_cast<float>(shape_.head_dim);
        const float frequency = std::pow(shape_.rope_theta, exponent);
        for (int p = have; p < positions; p++) {
            const float angle = static_cast<float>(p) * frequency;
            cos_[static_cast<size_t>(p) * half + i] = std::cos(angle);
            sin_[static_cast<size_t>(p) * half + i] = std::sin(angle);
        }
    }
}

void Engine::each(int rows, const auto& body) {
    if (rows >= kFewRows) {
        pool_.run(rows, body);
    } else {
        for (int row = 0; row < rows; row++) body(row);
    }
}

void Engine::pass(std::span<const Part> parts, std::span<const int32_t> tokens, int count) {
    grow(count);
    for (const Part& part : parts) rotations(part.position + part.count);
    each(count, [&](int row) { embedding_.row(tokens[row], &x_[row * hidden_]); });
    plan(parts);
    std::vector<int> all(count), owner(count);
    for (int row = 0; row < count; row++) all[row] = row;
    for (size_t p = 0; p < parts.size(); p++)
        std::fill_n(owner.begin() + parts[p].first, parts[p].count, static_cast<int>(p));
    for (int l = 0; l < static_cast<int>(layers_.size()); l++) {
        const Layer& layer = layers_[l];
        normalize(layer.input_norm, all);
        float* qkv = qkv_rows_.data();
        multiply({{layer.q, qkv + q_at_, qkv_}, {layer.k, qkv + k_at_, qkv_}, {layer.v, qkv + v_at_, qkv_}}, count,
                 false);
        each(count, [&](int row) { place(parts[owner[row]], l, row, count); });
        attention(l, count);
        round(attended_rows_.data(), attended_, count);
        multiply({{layer.o, x_.data(), hidden_}}, count, true);
        normalize(layer.post_norm, all);
        gated(*layer.gate, *layer.up, count);
        round(inner_rows_.data(), inner_, count);
        multiply({{layer.down, x_.data(), hidden_}}, count, true);
    }
}

void Engine::head(std::span<const int> wanted, float* logits) {
    const int vocabulary = head_.rows(), padded = tiles_width(head_);
    normalize(norm_, wanted);
    if (vocabulary == padded) return multiply({{&head_, logits, static_cast<size_t>(padded)}}, wanted.size(), false);
    // The last tile is wider than the row that it belongs to.
    std::vector<float> wide(wanted.size() * padded);
    multiply({{&head_, wide.data(), static_cast<size_t>(padded)}}, wanted.size(), false);
    for (size_t i = 0; i < wanted.size(); i++)
        std::copy_n(&wide[i * padded], vocabulary, logits + i * vocabulary);
}

// ------------------------------------------------------------------------------------------------------------ matrices

Activations Engine::activations(size_t columns) {
    return {values_.data(), scales_.data(), starts_.data(), static_cast<int>(columns / kGroup)};
}

// Some rows of the states, normalised and rounded, one after the other.
void Engine::normalize(const std::vector<float>& weight, std::span<const int> rows) {
    const Activations to = activations(hidden_);
    each(static_cast<int>(rows.size()), [&](int i) {
        float* normed = &normed_[i * hidden_];
        kernels_.rms_norm(&x_[rows[i] * hidden_], weight.data(), shape_.hidden, shape_.eps, normed);
        kernels_.quantize(normed, to, i);
    });
}

void Engine::round(const float* x, size_t stride, int count) {
    const Activations to = activations(stride);
    each(count, [&](int row) { kernels_.quantize(x + row * stride, to, row); });
}

// Tiles that one task takes: few, so that no thread waits long for the last one, but enough to be worth the claim. An
// even number, for kernels that take two.
int Engine::unit(int tiles) const { return up(std::clamp(tiles / (pool_.threads() * 12), 2, 32), 2); }

void Engine::multiply(std::initializer_list<Output> outputs, int rows, bool add) {
    if (rows == 0) return;
    int tiles = 0, tasks = 0;
    for (const Output& o : outputs) tiles += o.matrix->weights().tiles;
    const int unit = this->unit(tiles);
    for (const Output& o : outputs) tasks += up(o.matrix->weights().tiles, unit) / unit;
    pool_.run(tasks, [&](int task) {
        const Output* o = outputs.begin();
        for (; task >= up(o->matrix->weights().tiles, unit) / unit; o++) task -= up(o->matrix->weights().tiles, unit) / unit;
        const Weights& w = o->matrix->weights();
        const int first = task * unit, last = std::min(w.tiles, first + unit);
        kernels_.multiply(w, activations(static_cast<size_t>(w.groups) * kGroup), rows, first, last, o->out, o->stride,
                          add);
    });
}

void Engine::gated(const Matrix& gate, const Matrix& raise, int rows) {
    const int tiles = gate.weights().tiles, unit = this->unit(2 * tiles);
    pool_.run(up(tiles, unit) / unit, [&](int task) {
        const int first = task * unit, last = std::min(tiles, first + unit);
        kernels_.gated(gate.weights(), raise.weights(), activations(hidden_), rows, first, last, inner_rows_.data(),
                       inner_);
    });
}

// ----------------------------------------------------------------------------------------------------------- attention

// Turn queries and keys by their position (RoPE, Su et al., 2021), and put keys and values where they stay.
void Engine::place(const Part& part, int layer, int row, int count) {
    const int dim = shape_.head_dim, half = dim / 2, position = part.position + row - part.first;
    const int shared = shape_.heads / shape_.kv_heads, page = (*part.pages)[position / kLanes], lane = position % kLanes;
    const float* cos = &cos_[static_cast<size_t>(position) * half];
    const float* sin = &sin_[static_cast<size_t>(position) * half];
    const float* from = &qkv_rows_[row * qkv_];
    const float scale = 1.0f / std::sqrt(static_cast<float>(dim));
    for (int h = 0; h < shape_.heads; h++) {
        const float* q = from + q_at_ + h * dim;
        const size_t slot = (static_cast<size_t>(h / shared) * count + row) * shared + h % shared;
        float* to = &queries_[slot * depth_];
        for (int i = 0; i < half; i++) {
            to[i] = (q[i] * cos[i] - q[i + half] * sin[i]) * scale;
            to[i + half] = (q[i + half] * cos[i] + q[i] * sin[i]) * scale;
        }
    }
    for (int h = 0; h < shape_.kv_heads; h++) {
        const float *k = from + k_at_ + h * dim, *v = from + v_at_ + h * dim;
        uint16_t* keys = pages_.keys(page, layer, h) + 2 * lane;
        uint16_t* values = pages_.values(page, layer, h) + lane / 2 * 2 * depth_ + lane % 2;
        const auto key = [&](int i) -> uint16_t& { return keys[i / 2 * 2 * kLanes + i % 2]; };
        for (int i = 0; i < half; i++) {
            key(i) = float_to_bf16(k[i] * cos[i] - k[i + half] * sin[i]);
            key(i + half) = float_to_bf16(k[i + half] * cos[i] + k[i] * sin[i]);
        }
        for (int i = 0; i < dim; i++) values[2 * i] = float_to_bf16(v[i]);
    }
}

// Who does what, the same in every layer. Where rows are few, the chunks of a long past are spread over the threads.
void Engine::plan(std::span<const Part> parts) {
    const auto chunks_of = [](int tokens) { return (tokens + kChunk - 1) / kChunk; };
    int chunks = 0, count = 0;
    for (const Part& part : parts) {
        chunks = std::max(chunks, chunks_of(part.position + part.count));
        count += part.count;
    }
    // Tasks enough to share them evenly, and then as large as can be: a task reads its keys once for all its rows.
    const int enough = 4 * pool_.threads();
    const int block = std::clamp(count * shape_.kv_heads / enough, 1, kRowBlock);
    const bool spread = count / block * shape_.kv_heads < enough;
    slots_ = spread ? chunks : 1;
    tasks_.clear();
    for (const Part& part : parts)
        for (int first = 0; first < part.count; first += block) {
            const int rows = std::min(block, part.count - first), all = chunks_of(part.position + first + rows);
            for (int h = 0; h < shape_.kv_heads; h++)
                for (int chunk = 0; chunk < all; chunk += spread ? 1 : all)
                    tasks_.push_back({&part, part.first + first, rows, h, chunk, spread ? chunk + 1 : all});
        }
    partials_.resize(static_cast<size_t>(count) * shape_.heads * slots_ * (depth_ + 2));
}

Partial Engine::partial(int slot_of_query, int chunk) {
    float* at = &partials_[(static_cast<size_t>(slot_of_query) * slots_ + chunk) * (depth_ + 2)];
    return {at, at + depth_, at + depth_ + 1};
}

void Engine::attention(int layer, int count) {
    pool_.run(static_cast<int>(tasks_.size()), [&](int task) { attend(tasks_[task], layer, count); });
    if (slots_ == 1) return;
    for (const Task& task : tasks_) {
        if (task.chunk > 0) continue;
        const int shared = shape_.heads / shape_.kv_heads;
        for (int q = 0; q < task.rows * shared; q++) {
            const int row = task.row + q / shared, slot = (task.head * count + task.row) * shared + q;
            const int tokens = task.part->position + row - task.part->first + 1;
            for (int chunk = 1; chunk * kChunk < tokens; chunk++)
                kernels_.merge(partial(slot, 0), partial(slot, chunk), depth_);
            finish(partial(slot, 0), row, task.head * shared + q % shared);
        }
    }
}

void Engine::attend(const Task& task, int layer, int count) {
    const int shared = shape_.heads / shape_.kv_heads, total = task.rows * shared;
    const int base = (task.head * count + task.row) * shared;
    const int position = task.part->position + task.row - task.part->first;
    std::vector<float> beside(slots_ == 1 && task.end > 1 ? static_cast<size_t>(kQueries) * (depth_ + 2) : 0);
    for (int from = 0; from < total; from += kQueries) {
        const int to = std::min(total, from + kQueries);
        for (int chunk = task.chunk; chunk < task.end; chunk++) {
            int visible[kQueries], first = from;
            // Rows before this chunk's first token see nothing of it.
            while (first < to && position + first / shared < chunk * kChunk) first++;
            if (first == to) continue;
            Partial results[kQueries];
            const bool merged = slots_ == 1 && chunk > 0;
            for (int q = first; q < to; q++) {
                visible[q - first] = std::min(kChunk, position + q / shared + 1 - chunk * kChunk);
                float* at = beside.data() + static_cast<size_t>(q - from) * (depth_ + 2);
                results[q - first] = merged ? Partial{at, at + depth_, at + depth_ + 1}
                                            : partial(base + q, slots_ == 1 ? 0 : chunk);
            }
            Block blocks[kChunk / kLanes];
            const int tokens = std::min(kChunk, position + (to - 1) / shared + 1 - chunk * kChunk);
            for (int b = 0; b * kLanes < tokens; b++) {
                const int page = (*task.part->pages)[chunk * (kChunk / kLanes) + b];
                blocks[b] = {pages_.keys(page, layer, task.head), pages_.values(page, layer, task.head)};
            }
            kernels_.attend(&queries_[static_cast<size_t>(base + first) * depth_], to - first, depth_, blocks, visible,
                            results);
            if (merged)
                for (int q = first; q < to; q++) kernels_.merge(partial(base + q, 0), results[q - first], depth_);
        }
        if (slots_ == 1)
            for (int q = from; q < to; q++)
                finish(partial(base + q, 0), task.row + q / shared, task.head * shared + q % shared);
    }
}

void Engine::finish(const Partial& result, int row, int head) {
    float* to = &attended_rows_[row * attended_ + static_cast<size_t>(head) * shape_.head_dim];
    for (int i = 0; i < shape_.head_dim; i++) to[i] = result.out[i] / *result.sum;
}

}  // namespace codegen25
