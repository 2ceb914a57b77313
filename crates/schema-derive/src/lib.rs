//! `#[derive(Record)]` and `#[derive(Entity)]`: a Rust struct becomes a schema.
//!
//! The macros know no rule by name. Every item of `#[field(...)]`, `#[record(...)]` and `#[entity(...)]` becomes one
//! call on `schema::Field`, `schema::Record` or `schema::EntitySchema`:
//!
//! | written | becomes |
//! |---|---|
//! | `unique` | `.unique()` |
//! | `default = ["apikey"]` | `.default(json!(["apikey"]))` |
//! | `name = "services"` | `.name("services")` |
//! | `between(0, 65535)` | `.between(0, 65535)` |
//!
//! so adding a rule means adding a method there. A field's doc comment becomes its description, its Rust type its kind;
//! `Option<T>` is a field that may be null.

use proc_macro::TokenStream;
use proc_macro2::TokenStream as Tokens;
use quote::quote;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Attribute, Data, DeriveInput, Expr, Fields, Ident, LitStr, Meta, Token, parenthesized, parse_macro_input};

/// A record: `schema::FieldType` and `schema::RecordType` for a struct with named fields.
#[proc_macro_derive(Record, attributes(field, record))]
pub fn record(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand_record(&input).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// An entity: a record with a name, keys and Admin API paths.
#[proc_macro_derive(Entity, attributes(field, record, entity))]
pub fn entity(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    let expand = || -> syn::Result<Tokens> {
        let record = expand_record(&input)?;
        let name = &input.ident;
        let doc = doc(&input.attrs);
        let calls = calls(&input.attrs, "entity")?;
        Ok(quote! {
            #record
            impl ::schema::EntityType for #name {
                fn entity() -> &'static ::schema::EntitySchema {
                    static SCHEMA: ::std::sync::LazyLock<::schema::EntitySchema> = ::std::sync::LazyLock::new(|| {
                        ::schema::EntitySchema::new::<#name>(<#name as ::schema::RecordType>::record()).doc(#doc) #(#calls)*
                    });
                    &SCHEMA
                }
            }
        })
    };
    expand().unwrap_or_else(syn::Error::into_compile_error).into()
}

fn expand_record(input: &DeriveInput) -> syn::Result<Tokens> {
    let name = &input.ident;
    let Data::Struct(data) = &input.data else {
        return Err(syn::Error::new_spanned(name, "a record is a struct"));
    };
    let Fields::Named(fields) = &data.fields else {
        return Err(syn::Error::new_spanned(name, "a record has named fields"));
    };
    let mut declared = Vec::new();
    for field in &fields.named {
        let ident = field.ident.as_ref().expect("named fields have names");
        let shown = wire_name(ident, &field.attrs)?;
        let ty = &field.ty;
        let doc = doc(&field.attrs);
        let calls = calls(&field.attrs, "field")?;
        declared.push(quote! {
            .field(<#ty as ::schema::FieldType>::field().named(#shown).doc(#doc) #(#calls)*)
        });
    }
    let calls = calls(&input.attrs, "record")?;
    Ok(quote! {
        impl ::schema::RecordType for #name {
            fn record() -> &'static ::schema::Record {
                static SCHEMA: ::std::sync::LazyLock<::schema::Record> = ::std::sync::LazyLock::new(|| {
                    ::schema::Record::new() #(#declared)* #(#calls)*
                });
                &SCHEMA
            }
        }
        impl ::schema::FieldType for #name {
            fn field() -> ::schema::Field {
                ::schema::Field::record(<#name as ::schema::RecordType>::record())
            }
        }
    })
}

/// The name on the wire: that of the Rust field without `r#`, or what `#[serde(rename = "...")]` says.
fn wire_name(ident: &Ident, attrs: &[Attribute]) -> syn::Result<String> {
    for attr in attrs.iter().filter(|a| a.path().is_ident("serde")) {
        let mut renamed = None;
        attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("rename") {
                renamed = Some(meta.value()?.parse::<LitStr>()?.value());
            } else if meta.input.peek(Token![=]) {
                meta.value()?.parse::<Expr>()?;
            }
            Ok(())
        })?;
        if let Some(name) = renamed {
            return Ok(name);
        }
    }
    Ok(ident.to_string().trim_start_matches("r#").to_owned())
}

fn doc(attrs: &[Attribute]) -> String {
    let mut lines = Vec::new();
    for attr in attrs {
        if let Meta::NameValue(pair) = &attr.meta
            && pair.path.is_ident("doc")
            && let Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) = &pair.value
        {
            lines.push(text.value().trim().to_owned());
        }
    }
    // Lines of a paragraph are one line of the description.
    lines.split(String::is_empty).map(|paragraph| paragraph.join(" ")).collect::<Vec<_>>().join("\n\n")
}

/// One item of an attribute's list.
struct Item {
    name: Ident,
    arguments: Tokens,
}

impl Parse for Item {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let name: Ident = input.parse()?;
        let arguments = if input.peek(Token![=]) {
            input.parse::<Token![=]>()?;
            let value: Expr = input.parse()?;
            if name == "default" { quote!(::schema::json!(#value)) } else { quote!(#value) }
        } else if input.peek(syn::token::Paren) {
            let inner;
            parenthesized!(inner in input);
            inner.parse()?
        } else {
            Tokens::new()
        };
        Ok(Self { name, arguments })
    }
}

fn calls(attrs: &[Attribute], list: &str) -> syn::Result<Vec<Tokens>> {
    let mut out = Vec::new();
    for attr in attrs.iter().filter(|a| a.path().is_ident(list)) {
        for Item { name, arguments } in attr.parse_args_with(Punctuated::<Item, Token![,]>::parse_terminated)? {
            out.push(quote!(.#name(#arguments)));
        }
    }
    Ok(out)
}
