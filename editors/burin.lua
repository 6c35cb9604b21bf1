---@meta burin
-- SPDX-License-Identifier: MIT
-- burin.lua - what editors with LuaLS know about `require "burin"`. Never run. docs/recipes.md says more of each field;
-- a test compares the names here with the schemas.

---@alias burin.Every string|integer  # "1 epoch", "100 steps" or a number of steps
---@alias burin.Dtype "f32"|"f16"|"bf16"
---@alias burin.Sampler "ddim"|"ddpm"|"dpmpp_2m"|"dpmpp_2m_sde"|"euler"|"euler_a"|"heun"|"lms"|"unipc"
---@class burin.Model
---@class burin.Method
---@class burin.Optimizer
---@class burin.Schedule
---@class burin.Loss
---@class burin.Recipe

---@class burin.Prior
---@field prompt string                 # what the class looks like without the subject
---@field count? integer                # 100; missing ones are generated
---@field weight? number                # 1
---@field images? string                # folder of class images of one's own, only read
---@field steps? integer                # 30
---@field guidance? number              # 7.5
---@field sampler? burin.Sampler         # "ddim"

---@class burin.Concept
---@field images string                 # a folder of images, or of folders named like "10_sks dog"
---@field prompt? string                # caption of images without a caption file
---@field lines? "first"|"all"|"any"    # of caption files with several lines; "first"
---@field repeats? integer
---@field weight? number                # 1
---@field prior? burin.Prior

---@class burin.Sample
---@field every? burin.Every
---@field prompts string[]              # kohya's --n --s --l --d are understood
---@field steps? integer                # 20
---@field guidance? number              # 7.5
---@field seed? integer                 # 0
---@field batch? integer                # 1
---@field sampler? burin.Sampler
---@field width? integer
---@field height? integer

---@class burin.Save
---@field every? burin.Every
---@field format? "kohya"|"diffusers"|"peft"|"checkpoint"
---@field dtype? burin.Dtype
---@field metadata? "full"|"minimal"|"none"
---@field sidecar? boolean
---@field date? boolean

---@class burin.State
---@field every? burin.Every            # "250 steps"
---@field keep? integer                 # 2

---@class burin.Train
---@field name string
---@field base burin.Model
---@field vae? string                  # instead of the base's
---@field concepts burin.Concept[]
---@field method burin.Method
---@field from? string                  # a LoRA, or with burin.full a checkpoint, that the training begins from
---@field resolution? integer           # 512
---@field buckets? boolean              # true
---@field batch? integer                # 1
---@field accumulate? integer           # 1
---@field epochs? number                # 10, or give steps
---@field steps? integer
---@field seed? integer                 # 0
---@field optimizer? burin.Optimizer    # burin.adamw {}
---@field schedule? burin.Schedule      # burin.constant {}
---@field loss? burin.Loss              # burin.mse()
---@field max_grad_norm? number         # 1; 0 = no clipping
---@field on_nonfinite? "stop"|"back"   # "stop"
---@field max_nonfinite? integer        # 3; updates in a row
---@field precision? burin.Dtype        # "f32", or what the budget asks for
---@field base_precision? burin.Dtype|"int8"
---@field clip_skip? integer
---@field max_tokens? 75|150|225        # the smallest that holds every caption
---@field weighted_captions? boolean    # false; (word:1.2) in captions
---@field checkpoint? boolean           # false, or what the budget asks for
---@field budget? string                # "8 GiB"
---@field prediction? "epsilon"|"v"
---@field sample? burin.Sample
---@field save? burin.Save
---@field state? burin.State
---@field output? string                # "runs"

---@class burin.AdamW
---@field lr? number                    # 1e-4
---@field beta1? number                 # 0.9
---@field beta2? number                 # 0.999
---@field eps? number                   # 1e-8
---@field weight_decay? number          # 0.01
---@field text_encoder_lr? number

---@class burin.SGD
---@field lr? number                    # 1e-2
---@field momentum? number              # 0
---@field weight_decay? number          # 0
---@field text_encoder_lr? number

---@class burin.ScheduleOptions
---@field warmup? number                # share of all steps (< 1) or number of steps
---@field floor? number                 # 0
---@field cycles? number                # 1

---@class burin.Lora
---@field rank? integer                 # 8
---@field alpha? number                 # rank
---@field conv_rank? integer
---@field conv_alpha? number
---@field text_encoder? boolean         # true
---@field unet? boolean                 # true

---@class burin.Full
---@field text_encoder? boolean         # false
---@field unet? boolean                 # true

---@class burin.Compile
---@field name? string
---@field inputs table                  # name -> { shape, dtype }, or a list of such tables
---@field loss fun(batch: table<string, burin.Node>, graph: burin.Graph, control: burin.Node): burin.Node
---@field params fun(): { name: string, var: any, group: integer }[]
---@field optimizer burin.Optimizer
---@field schedule? burin.Schedule
---@field steps? integer
---@field max_grad_norm? number         # 1
---@field accumulate? integer           # 1
---@field seed? integer                 # 0
---@field ema? number
---@field loss_scale? number

---@class burin.Layer                   # as a method sees it
---@field name string
---@field component string
---@field kind "linear"|"conv"
---@field group string
---@field inputs integer
---@field outputs integer
---@field kernel integer

---@class burin.MethodDefinition
---@field name string
---@field options? table<string, any>   # defaults, or rules { "integer", default = 8, min = 1 }
---@field targets? fun(o: table, layer: burin.Layer): boolean
---@field params fun(o: table, layer: burin.Layer): table<string, burin.Node>
---@field forward fun(o: table, layer: burin.Layer, p: table<string, burin.Node>, x: burin.Node, y: burin.Node):
---burin.Node # of y's shape
---@field alpha? fun(o: table, layer: burin.Layer): number
---@field settle? fun(o: table)
---@field kind? "lora"                  # parameters are lora_down and lora_up
---@field network_module? string
---@field network_args? fun(o: table): table<string, string>

---@class burin.LossDefinition
---@field name string
---@field per_sample? fun(s: table<string, burin.Node>): burin.Node # (B): one value per sample
---@field weight? fun(snr: number, prediction: string): number

---@class burin.MinSnr
---@field gamma? number                 # 5

---@class burin.Node                    # every op of docs/ops.md is a method
---@field shape integer[]
---@field dtype string
---@field graph burin.Graph
---@field [string] fun(self: burin.Node, ...): burin.Node
---@operator add(burin.Node|number): burin.Node
---@operator sub(burin.Node|number): burin.Node
---@operator mul(burin.Node|number): burin.Node
---@operator div(burin.Node|number): burin.Node
---@operator unm: burin.Node
---@class burin.Graph

---@class burin.ModelFiles
---@field [1] string                    # a checkpoint (safetensors or PyTorch) or a folder in the layout of diffusers
---@field vae? string                   # file or folder to take the VAE from
---@field text_encoder? string          # and the text encoder
---@field text_encoder_2? string        # and SDXL's second one

---@class burin
local burin = {}
---@param files string|burin.ModelFiles
---@return burin.Model
function burin.model(files) end
---@param o burin.Train
---@return burin.Recipe
function burin.train(o) end
---@param o? burin.Lora
---@return burin.Method
function burin.lora(o) end
---@param o? burin.Lora
---@return burin.Method
function burin.locon(o) end
---@param o? burin.Full
---@return burin.Method
function burin.full(o) end
---@param o burin.MethodDefinition
---@return fun(o?: table): burin.Method
function burin.method(o) end
---@param o? burin.AdamW
---@return burin.Optimizer
function burin.adamw(o) end
---@param o? burin.SGD
---@return burin.Optimizer
function burin.sgd(o) end
---@param o? burin.ScheduleOptions
---@return burin.Schedule
function burin.constant(o) end
---@param o? burin.ScheduleOptions
---@return burin.Schedule
function burin.linear(o) end
---@param o? burin.ScheduleOptions
---@return burin.Schedule
function burin.cosine(o) end
---@param name string
---@param factor fun(step: integer, steps: integer): number
---@return burin.Schedule
function burin.schedule(name, factor) end
---@return burin.Loss
function burin.mse() end
---@param o? burin.MinSnr
---@return burin.Loss
function burin.min_snr(o) end
---@param o burin.LossDefinition
---@return burin.Loss
function burin.loss(o) end
---@param o burin.Compile
---@return fun(batch: table, shape?: integer): number, number # loss and gradient norm
function burin.compile(o) end
---@param name string
---@param inputs table name -> { shape, dtype }
---@param trace fun(x: table<string, burin.Node>, graph: burin.Graph): table<string, burin.Node>
---@return fun(batch: table): table
function burin.session(name, inputs, trace) end
---@param text string a format, as string.format takes it
function burin.log(text, ...) end
return burin
